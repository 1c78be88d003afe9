"""Sampling images: noise from the prior, through the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from refeed.core import progress
from refeed.core.errors import StudyError
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.core.steps import POSITION
from refeed.families.images.worlds import ImageWorld

if TYPE_CHECKING:
    from refeed.families.images.model import ImageModel

CHUNK = 1000


@dataclass(frozen=True, kw_only=True)
class Prior:
    """Images from standard normal noise: evaluation mode, clamped to [0, 1], rounded to bytes, on one scale for all generations.

    `temperature` multiplies the noise; below 1 the sampler itself narrows what is sampled. `observation_noise` adds the noise of a
    Gaussian likelihood to the decoded mean, as sampling from the whole model does; without it, its variance is left out.
    """

    temperature: float = 1.0
    observation_noise: bool = False
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise StudyError(f"sampler.temperature must be a positive number, not {self.temperature}")

    def sample(self, model: ImageModel, num_rows: int, *, world: ImageWorld, seed: Seed) -> Rows:
        return self.sample_part(model, num_rows, part=(0, 1), world=world, seed=seed).without(POSITION)

    def sample_part(self, model: ImageModel, num_rows: int, *, part: tuple[int, int], world: ImageWorld, seed: Seed) -> Rows:
        """Every n-th thousand of images, decoded together as ever; the noise of the others is drawn and left."""
        rng = seed.generator()
        made, positions = [model.images(np.zeros((0, *model.noise_shape), dtype=np.float32))], [np.zeros(0, dtype=np.int64)]
        for number, first in enumerate(range(0, num_rows, CHUNK)):
            end = min(first + CHUNK, num_rows)
            noise = rng.standard_normal((end - first, *model.noise_shape), dtype=np.float32)
            if number % part[1] == part[0]:
                observation = self._observation(seed / "observation" / first)
                made.append(model.images(noise * np.float32(self.temperature), seed=observation))
                positions.append(np.arange(first, end))
                progress.tick(end, num_rows, "images")
        return Rows(image=np.concatenate(made), **{POSITION: np.concatenate(positions)})

    def _observation(self, seed: Seed) -> Seed | None:
        return seed if self.observation_noise else None

"""Sampling images: noise from the prior, through the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from refeed.core import progress
from refeed.core.errors import StudyError
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
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
        rng = seed.generator()
        made = []
        for first in range(0, num_rows, CHUNK):
            noise = rng.standard_normal((min(CHUNK, num_rows - first), *model.noise_shape), dtype=np.float32)
            made.append(model.images(noise * np.float32(self.temperature), seed=self._observation(seed / "observation" / first)))
            progress.tick(min(first + CHUNK, num_rows), num_rows, "images")
        empty = np.zeros((0, *model.noise_shape), dtype=np.float32)
        return Rows(image=np.concatenate(made) if made else model.images(empty))

    def _observation(self, seed: Seed) -> Seed | None:
        return seed if self.observation_noise else None

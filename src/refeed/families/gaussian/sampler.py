"""Rows drawn from a fitted Gaussian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from refeed.core.errors import StudyError
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.families.gaussian.learner import GaussianModel


@dataclass(frozen=True, kw_only=True)
class Draws:
    """x ~ N(mean, temperature x covariance). A temperature below 1 shrinks every generation: a bias, not finite-sample collapse."""

    temperature: float = 1.0
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise StudyError(f"sampler.temperature must not be negative, not {self.temperature}")

    def sample(self, model: GaussianModel, num_rows: int, *, world: Any, seed: Seed) -> Rows:
        values, vectors = np.linalg.eigh(model.covariance)  # a covariance of rank below d is drawn from as it is
        root = vectors * np.sqrt(self.temperature * np.maximum(values, 0.0))
        return Rows(x=model.mean + seed.generator().standard_normal((num_rows, len(model.mean))) @ root.T)

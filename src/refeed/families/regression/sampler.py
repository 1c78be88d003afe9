"""Synthetic rows of the linear model: labels from the fitted coefficients, with the noise of the real ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from refeed.core.errors import StudyError
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.families.regression.learner import LinearModel
from refeed.families.regression.source import LinearWorld


@dataclass(frozen=True, kw_only=True)
class Relabel:
    """y = x.w_n + N(0, s^2), on fresh x every generation, or (`design = "same"`) on the x of the real rows, as in the paper.

    With the same x, more rows than the real data have are labelled by going through the real x again.
    """

    design: Literal["fresh", "same"] = "fresh"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.design not in ("fresh", "same"):
            raise StudyError(f"sampler.design must be 'fresh' or 'same', not {self.design!r}")

    def sample(self, model: LinearModel, num_rows: int, *, world: LinearWorld, seed: Seed) -> Rows:
        rng = seed.generator()
        if self.design == "fresh":
            x = rng.standard_normal((num_rows, len(model.coefficients)))
        else:
            real = world.train["x"]
            x = real if num_rows == len(real) else real[[row % len(real) for row in range(num_rows)]]
        y = rng.standard_normal(num_rows)
        y *= world.noise
        y += x @ model.coefficients
        return Rows(x=x, y=y)

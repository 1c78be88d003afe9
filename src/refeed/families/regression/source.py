"""Real rows of the linear model, y = x.w* + noise, with x standard normal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from refeed.core.errors import StudyError
from refeed.core.protocols import World
from refeed.core.rows import Rows
from refeed.core.seeds import Seed


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearWorld(World):
    coefficients: np.ndarray  # w*, of shape (d,)
    noise: float  # s, the standard deviation of the label noise
    scores: ClassVar[tuple[str, ...]] = (*World.scores, "closeness", "fit")

    def score(self, name: str, rows: Rows, *, model: Any) -> np.ndarray:
        """`closeness`: minus the squared distance of a label from the truth; `fit`: from what the model would say."""
        if name not in ("closeness", "fit"):
            return super().score(name, rows, model=model)
        coefficients = self.coefficients if name == "closeness" else model.coefficients
        return -((rows["y"] - rows["x"] @ coefficients) ** 2)


@dataclass(frozen=True, kw_only=True)
class Linear:
    """y = x.w* + N(0, noise^2), x ~ N(0, I_d), |w*|^2 = signal. Every lineage draws its own rows."""

    dimension: int = 10
    rows: int = 100
    noise: float = 1.0
    signal: float = 1.0
    rebuilds: ClassVar[bool] = True
    random: ClassVar[bool] = True
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.dimension < 1 or self.rows < 1:
            raise StudyError(f"source.dimension and source.rows must be at least 1, not {self.dimension} and {self.rows}")
        if not (0 <= self.noise < np.inf and 0 <= self.signal < np.inf):
            raise StudyError(f"source.noise and source.signal must be finite and not negative, not {self.noise} and {self.signal}")

    @property
    def num_rows(self) -> int:
        return self.rows

    def draw(self, *, seed: Seed) -> LinearWorld:
        coefficients = np.full(self.dimension, np.sqrt(self.signal / self.dimension))
        rng = seed.generator()
        x = rng.standard_normal((self.rows, self.dimension))
        y = x @ coefficients + self.noise * rng.standard_normal(self.rows)
        nothing = Rows(x=np.zeros((0, self.dimension)), y=np.zeros(0))  # the excess risk has a closed form
        return LinearWorld(train=Rows(x=x, y=y), test=nothing, coefficients=coefficients, noise=self.noise)

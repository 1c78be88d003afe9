"""Real rows of a standard normal distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from refeed.core.errors import StudyError
from refeed.core.protocols import World
from refeed.core.rows import Rows
from refeed.core.seeds import Seed


@dataclass(frozen=True, kw_only=True)
class Normal:
    """x ~ N(0, I_d). No loss of generality: fits follow every linear map of the data. Every lineage draws its own rows."""

    dimension: int = 1
    rows: int = 100
    rebuilds: ClassVar[bool] = True
    random: ClassVar[bool] = True
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.dimension < 1:
            raise StudyError(f"source.dimension must be at least 1, not {self.dimension}")
        if self.rows <= self.dimension:
            raise StudyError(
                "source.rows must be above source.dimension for the covariance to have full rank, "
                f"not {self.rows} and {self.dimension}"
            )

    @property
    def num_rows(self) -> int:
        return self.rows

    def draw(self, *, seed: Seed) -> World:
        rows = seed.generator().standard_normal((self.rows, self.dimension))
        nothing = Rows(x=np.zeros((0, self.dimension)))  # divergences have a closed form
        return World(train=Rows(x=rows), test=nothing)

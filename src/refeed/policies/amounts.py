"""How many rows are sampled from each model. T is the number of real training rows, g the generation of the model."""

from __future__ import annotations

from dataclasses import dataclass

from refeed.core.errors import StudyError
from refeed.core.loop import State
from refeed.policies.parts import at_least


@dataclass(frozen=True, kw_only=True)
class Constant:
    """`rows` every generation; T where not given."""

    rows: int | None = None

    def __post_init__(self) -> None:
        at_least("rows", self.rows, 1)

    def __call__(self, state: State) -> int:
        return state.real.num_rows if self.rows is None else self.rows


@dataclass(frozen=True, kw_only=True)
class Listed:
    """The g-th of `rows`; the last one from there on."""

    rows: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.rows:
            raise StudyError("rows must list at least one amount.", at="rows")
        for rows in self.rows:
            at_least("rows", rows, 1)

    def __call__(self, state: State) -> int:
        return self.rows[min(state.generation, len(self.rows)) - 1]


@dataclass(frozen=True, kw_only=True)
class Linear:
    """T + (g - 1) `step` T, at least one row."""

    step: float = 1.0

    def __call__(self, state: State) -> int:
        return max(1, round(state.real.num_rows * (1 + self.step * (state.generation - 1))))


@dataclass(frozen=True, kw_only=True)
class Geometric:
    """T `ratio`^g, at least one row."""

    ratio: float = 2.0

    def __post_init__(self) -> None:
        if not self.ratio > 0:
            raise StudyError(f"ratio must be positive, not {self.ratio}.", at="ratio")

    def __call__(self, state: State) -> int:
        return max(1, round(state.real.num_rows * self.ratio**state.generation))


@dataclass(frozen=True, kw_only=True)
class AsAccumulated:
    """(g + 1) T: as many as an accumulating pool would hold."""

    def __call__(self, state: State) -> int:
        return (state.generation + 1) * state.real.num_rows


@dataclass(frozen=True, kw_only=True)
class AsPool:
    """`times` the rows that are kept, so that an accumulating pool grows geometrically."""

    times: float = 1.0

    def __post_init__(self) -> None:
        if not self.times > 0:
            raise StudyError(f"times must be positive, not {self.times}.", at="times")

    def __call__(self, state: State) -> int:
        return max(1, round(self.times * state.pool.num_rows))


@dataclass(frozen=True, kw_only=True)
class Budget:
    """`rows` in all, in equal shares over the models of the first `generations` generations, and one row a generation after."""

    rows: int
    generations: int

    def __post_init__(self) -> None:
        at_least("generations", self.generations, 1)
        at_least("rows", self.rows, self.generations)

    def __call__(self, state: State) -> int:
        if state.generation > self.generations:
            return 1
        return self.rows * state.generation // self.generations - self.rows * (state.generation - 1) // self.generations

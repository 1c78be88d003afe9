"""Which of the kept rows a model is fitted on, and with which weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

from refeed.core.errors import StudyError
from refeed.core.loop import State
from refeed.core.seeds import Seed
from refeed.core.shards import Pool
from refeed.policies.parts import at_least


@dataclass(frozen=True, kw_only=True)
class All:
    """Every kept row."""

    def __call__(self, state: State, *, seed: Seed) -> Pool:
        return state.pool


@dataclass(frozen=True, kw_only=True)
class Subsample:
    """`rows` of the kept rows, chosen uniformly without replacement; as many as the real data have where not given."""

    rows: int | None = None

    def __post_init__(self) -> None:
        at_least("rows", self.rows, 1)

    def __call__(self, state: State, *, seed: Seed) -> Pool:
        return state.pool.subsample(state.real.num_rows if self.rows is None else self.rows, seed=seed)


@dataclass(frozen=True, kw_only=True)
class RealShare:
    """A training set of which the fraction `share` is real, as large as the kept rows allow, at most `rows`.

    With R real and S synthetic rows at hand the largest such set has min(R / share, S / (1 - share)) rows.
    """

    share: float = 0.5
    rows: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise StudyError(f"share must be a fraction in (0, 1], not {self.share}.", at="share")

    def __call__(self, state: State, *, seed: Seed) -> Pool:
        real, synthetic = state.pool.where(real=True), state.pool.where(real=False)
        size = real.num_rows / self.share
        if self.share < 1:
            size = min(size, synthetic.num_rows / (1 - self.share))
        size = min(size, self.rows or size)
        num_real = math.ceil(self.share * size)
        return real.subsample(num_real, seed=seed / "real") + synthetic.subsample(int(size) - num_real, seed=seed / "synthetic")


@dataclass(frozen=True, kw_only=True)
class RealShareFloor:
    """All kept rows, but of the synthetic ones no more than leave the real share at `share` or above."""

    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise StudyError(f"share must be a fraction in (0, 1], not {self.share}.", at="share")

    def __call__(self, state: State, *, seed: Seed) -> Pool:
        real, synthetic = state.pool.where(real=True), state.pool.where(real=False)
        most = math.floor(real.num_rows * (1 - self.share) / self.share + 1e-9)
        return real + synthetic.subsample(most, seed=seed)


@dataclass(frozen=True, kw_only=True)
class RealWeight:
    """Every kept row; the real ones together weigh `weight`, the synthetic ones 1 - `weight` (of the number of rows in all).

    Where not given, the weight is w* = (sqrt(k^2 + 4k) - k) / 2 for k real rows to a synthetic one, which minimises the limiting
    error of the loop with fresh real rows: the golden ratio's .618 at k = 1. Source: He, Xu, Cheng, arXiv:2502.18049.
    """

    weight: float | None = None

    def __post_init__(self) -> None:
        if self.weight is not None and not 0 <= self.weight <= 1:
            raise StudyError(f"weight must be a fraction in [0, 1], not {self.weight}.", at="weight")

    def __call__(self, state: State, *, seed: Seed) -> Pool:
        real, synthetic = state.pool.where(real=True), state.pool.where(real=False)
        if not real.num_rows or not synthetic.num_rows:
            return state.pool
        weight = golden_weight(real.num_rows / synthetic.num_rows) if self.weight is None else self.weight
        total = state.pool.num_rows
        return real.weighted(weight * total / real.num_rows) + synthetic.weighted((1 - weight) * total / synthetic.num_rows)


def golden_weight(ratio: float) -> float:
    """w* = (sqrt(k^2 + 4k) - k) / 2 for `ratio` = k real rows to a synthetic one.

    >>> round(golden_weight(1), 4)
    0.618
    """
    return (math.sqrt(ratio * ratio + 4 * ratio) - ratio) / 2

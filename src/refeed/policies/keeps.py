"""What stays in the pool. A bounded keep bounds the rows that any later generation can ever use."""

from __future__ import annotations

from dataclasses import dataclass

from refeed.core.errors import StudyError
from refeed.core.loop import State
from refeed.core.seeds import Seed
from refeed.core.shards import Part, Pool, Shard
from refeed.policies.parts import at_least


@dataclass(frozen=True, kw_only=True)
class Everything:
    """Nothing is ever dropped."""

    def __call__(self, state: State, fresh: Shard, *, seed: Seed) -> Pool:
        return state.pool + fresh


@dataclass(frozen=True, kw_only=True)
class Latest:
    """Only the fresh rows."""

    def __call__(self, state: State, fresh: Shard, *, seed: Seed) -> Pool:
        return Pool.of(fresh)


@dataclass(frozen=True, kw_only=True)
class RealAndLatest:
    """The real rows of generation 1 and the fresh rows."""

    def __call__(self, state: State, fresh: Shard, *, seed: Seed) -> Pool:
        return Pool.of(state.real, fresh)


@dataclass(frozen=True, kw_only=True)
class MoreRealAndLatest:
    """As many real rows as at the start, never seen before, and the fresh rows."""

    def __call__(self, state: State, fresh: Shard, *, seed: Seed) -> Pool:
        return Pool.of(state.more_real(), fresh)


@dataclass(frozen=True, kw_only=True)
class OnlyReal:
    """The real rows, and nothing that a model wrote."""

    def __call__(self, state: State, fresh: Shard, *, seed: Seed) -> Pool:
        return Pool.of(state.real)


@dataclass(frozen=True, kw_only=True)
class Window:
    """The rows of the last `generations` generations that are present, real rows counting as generation 0."""

    generations: int = 2

    def __post_init__(self) -> None:
        at_least("generations", self.generations, 1)

    def __call__(self, state: State, fresh: Shard, *, seed: Seed) -> Pool:
        return (state.pool + fresh).latest(self.generations)


@dataclass(frozen=True, kw_only=True)
class Reservoir:
    """`rows` of all rows ever offered, every set of that size equally likely, though the dropped ones are gone.

    Of N rows offered before and T fresh ones, the number H of fresh rows in a uniform sample of M is hypergeometric; so H fresh
    rows and M - H of the kept ones, each chosen uniformly, are a uniform sample of all N + T (Vitter 1985, batch by batch).
    """

    rows: int | None = None

    def __post_init__(self) -> None:
        at_least("rows", self.rows, 1)

    def __call__(self, state: State, fresh: Shard, *, seed: Seed) -> Pool:
        return _reservoir(state.pool, fresh, capacity=self.rows or state.real.num_rows, num_seen=state.num_seen, seed=seed)


@dataclass(frozen=True, kw_only=True)
class PinnedReservoir:
    """All the real rows, and a reservoir of `rows` over the synthetic ones alone."""

    rows: int | None = None

    def __post_init__(self) -> None:
        at_least("rows", self.rows, 1)

    def __call__(self, state: State, fresh: Shard, *, seed: Seed) -> Pool:
        capacity, num_seen = self.rows or state.real.num_rows, state.num_seen - state.real.num_rows
        synthetic = _reservoir(state.pool.where(real=False), fresh, capacity=capacity, num_seen=num_seen, seed=seed)
        return Pool.of(state.real) + synthetic


@dataclass(frozen=True, kw_only=True)
class Strata:
    """`rows` in all, in equal shares for every generation so far, real rows included; what remains goes to the earliest."""

    rows: int | None = None

    def __post_init__(self) -> None:
        at_least("rows", self.rows, 1)

    def __call__(self, state: State, fresh: Shard, *, seed: Seed) -> Pool:
        pool = state.pool + fresh
        generations = list(pool.rows_by_generation())
        share, rest = divmod(self.rows or state.real.num_rows, len(generations))
        kept = Pool()
        for number, generation in enumerate(generations):
            stratum = Pool(part for part in pool if part.generation == generation)
            kept += stratum.subsample(share + (number < rest), seed=seed / generation)
        return kept


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """Every kept row survives a generation with the chance `survival`, independently; fresh rows are all kept."""

    survival: float = 0.5
    pin_real: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.survival <= 1:
            raise StudyError(f"survival must be a chance in [0, 1], not {self.survival}.", at="survival")

    def __call__(self, state: State, fresh: Shard, *, seed: Seed) -> Pool:
        parts = []
        for number, part in enumerate(state.pool):
            if self.pin_real and part.shard.origin.is_real:
                parts.append(part)
                continue
            alive = (seed / number).generator().random(part.num_rows) < self.survival
            parts.append(part.take(alive.nonzero()[0]))
        return Pool((*parts, Part(fresh)))


def _reservoir(pool: Pool, fresh: Shard, *, capacity: int, num_seen: int, seed: Seed) -> Pool:
    together = num_seen + fresh.num_rows
    if together <= capacity:
        return pool + fresh
    num_fresh = int((seed / "share").generator().hypergeometric(fresh.num_rows, num_seen, capacity)) if num_seen else capacity
    old = pool.subsample(capacity - num_fresh, seed=seed / "old")
    return old + Pool.of(fresh).subsample(num_fresh, seed=seed / "fresh")

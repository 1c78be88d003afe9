"""The parts that a policy is made of: how many rows to sample, what stays in the pool, what the next model trains on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from refeed.core.loop import State
from refeed.core.seeds import Seed
from refeed.core.shards import Pool, Shard


class Amount(Protocol):
    """How many rows to sample from the model of generation `state.generation`."""

    def __call__(self, state: State) -> int: ...


class Keep(Protocol):
    """Which rows stay, once the fresh ones have arrived."""

    def __call__(self, pool: Pool, fresh: Shard, *, seed: Seed) -> Pool: ...


class Train(Protocol):
    """Which of the kept rows the next model is fitted on."""

    def __call__(self, state: State, *, seed: Seed) -> Pool: ...


@dataclass(frozen=True, kw_only=True)
class Constant:
    """As many rows every generation as the real data have, or `rows`."""

    rows: int | None = None

    def __call__(self, state: State) -> int:
        return state.real.num_rows if self.rows is None else self.rows


@dataclass(frozen=True, kw_only=True)
class Growing:
    """(g + 1) times the real rows from the model of generation g: as many as an accumulating pool would hold."""

    def __call__(self, state: State) -> int:
        return (state.generation + 1) * state.real.num_rows


@dataclass(frozen=True, kw_only=True)
class Everything:
    """Nothing is ever dropped."""

    def __call__(self, pool: Pool, fresh: Shard, *, seed: Seed) -> Pool:
        return pool + fresh


@dataclass(frozen=True, kw_only=True)
class Latest:
    """Only the fresh rows stay."""

    def __call__(self, pool: Pool, fresh: Shard, *, seed: Seed) -> Pool:
        return Pool.of(fresh)


@dataclass(frozen=True, kw_only=True)
class All:
    """Every kept row."""

    def __call__(self, state: State, *, seed: Seed) -> Pool:
        return state.pool


@dataclass(frozen=True, kw_only=True)
class Subsample:
    """Kept rows chosen uniformly without replacement: `rows` of them, or as many as the real data have."""

    rows: int | None = None

    def __call__(self, state: State, *, seed: Seed) -> Pool:
        return state.pool.subsample(state.real.num_rows if self.rows is None else self.rows, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Composite:
    """A policy made of three parts."""

    sample: Amount
    kept: Keep
    train: Train

    def amount(self, state: State) -> int:
        return self.sample(state)

    def keep(self, pool: Pool, fresh: Shard, *, seed: Seed) -> Pool:
        return self.kept(pool, fresh, seed=seed)

    def training_set(self, state: State, *, seed: Seed) -> Pool:
        return self.train(state, seed=seed)

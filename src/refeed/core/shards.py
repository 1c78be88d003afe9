"""Shards, parts and pools: which rows exist, where they were born, and which of them are meant. Never the rows themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from refeed.core.recipes import join
from refeed.core.seeds import Seed

if TYPE_CHECKING:
    from refeed.core.steps import Alter, Draw, Sample


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the rows of a shard were born."""

    generation: int  # 0 for real rows; g for rows sampled from the model of generation g
    model: str | None = None  # digest of the fit step; None for real rows

    @property
    def is_real(self) -> bool:
        return self.generation == 0


@dataclass(frozen=True, eq=False)
class Shard:
    """Rows born together and immutable, known by the step that makes them."""

    step: Draw | Sample | Alter
    num_rows: int
    origin: Origin

    @property
    def digest(self) -> str:
        return self.step.digest


@dataclass(frozen=True, eq=False)
class Part:
    """The rows of a shard that are meant: all of them, or those at `index` (sorted positions), each with a `weight`."""

    shard: Shard
    index: np.ndarray | None = None
    weight: float = 1.0

    @property
    def num_rows(self) -> int:
        return self.shard.num_rows if self.index is None else len(self.index)

    @property
    def generation(self) -> int:
        return self.shard.origin.generation

    @cached_property
    def digest(self) -> str:
        if self.index is None and self.weight == 1.0:
            return self.shard.digest
        rows = "all" if self.index is None else blake2b(self.index.astype("<i8").tobytes(), digest_size=16).hexdigest()
        return join("part", self.shard.digest, rows, repr(float(self.weight)))

    def take(self, positions: np.ndarray) -> Part:
        """The rows at sorted `positions` of this part; the part itself when that is all of them."""
        if len(positions) == self.num_rows and np.array_equal(positions, np.arange(self.num_rows)):
            return self
        return Part(self.shard, positions if self.index is None else self.index[positions], self.weight)


class Pool:
    """An ordered tuple of parts: the rows that are kept, or those that a model is fitted on. Immutable.

    Policies are written against this class alone: `pool + shard`, `pool.latest()`, `pool.subsample(n, seed=...)`.
    """

    __slots__ = ("_digest", "num_rows", "parts")

    def __init__(self, parts: Iterable[Part] = ()) -> None:
        self.parts = tuple(part for part in parts if part.num_rows)
        self.num_rows = sum(part.num_rows for part in self.parts)
        self._digest: str | None = None

    @classmethod
    def of(cls, *shards: Shard) -> Pool:
        return cls(Part(shard) for shard in shards)

    def __add__(self, other: Shard | Pool) -> Pool:
        return Pool((*self.parts, *(other.parts if isinstance(other, Pool) else (Part(other),))))

    def __iter__(self) -> Iterator[Part]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def digest(self) -> str:
        if self._digest is None:
            self._digest = join("pool", *(part.digest for part in self.parts))
        return self._digest

    @property
    def num_real(self) -> int:
        return sum(part.num_rows for part in self.parts if part.shard.origin.is_real)

    @property
    def real_share(self) -> float:
        """The fraction of rows that are real, in [0, 1]; NaN for an empty pool."""
        return self.num_real / self.num_rows if self.num_rows else float("nan")

    def rows_by_generation(self) -> dict[int, int]:
        """How many rows were born in each generation, 0 for real ones."""
        counts: dict[int, int] = {}
        for part in self.parts:
            counts[part.generation] = counts.get(part.generation, 0) + part.num_rows
        return dict(sorted(counts.items()))

    def where(self, *, real: bool) -> Pool:
        """The real rows, or the synthetic ones."""
        return Pool(part for part in self.parts if part.shard.origin.is_real == real)

    def latest(self, num_generations: int = 1) -> Pool:
        """The rows of the last `num_generations` generations that are present."""
        kept = sorted({part.generation for part in self.parts})[-num_generations:]
        return Pool(part for part in self.parts if part.generation in kept)

    def subsample(self, num_rows: int, *, seed: Seed) -> Pool:
        """`num_rows` rows chosen uniformly without replacement; the pool itself where it has no more than that.

        Every set of that size is equally likely. Order and parts are kept, so that a row's identity (shard, position) survives.
        """
        if num_rows >= self.num_rows:
            return self
        chosen = np.sort(seed.generator().choice(self.num_rows, size=num_rows, replace=False, shuffle=False))
        ends = np.cumsum([part.num_rows for part in self.parts])
        cuts = np.searchsorted(chosen, ends)
        starts = np.concatenate([[0], cuts[:-1]])
        firsts = ends - [part.num_rows for part in self.parts]
        return Pool(
            part.take(chosen[start:stop] - first) for part, start, stop, first in zip(self.parts, starts, cuts, firsts, strict=True)
        )

    def weighted(self, weight: float) -> Pool:
        """The same rows, their weights multiplied by `weight`."""
        return Pool(Part(part.shard, part.index, part.weight * weight) for part in self.parts)

"""Real symbols with known probabilities: independent ones of a Zipf law, or sequences of a Markov chain."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from refeed.core.errors import StudyError
from refeed.core.protocols import World
from refeed.core.rows import Rows
from refeed.core.seeds import Seed


@dataclass(frozen=True, eq=False, kw_only=True)
class SymbolWorld(World):
    probabilities: np.ndarray  # of the symbols; of the first symbol of a sequence
    transitions: np.ndarray | None = None  # (symbols, symbols), for sequences


def zipf(num_symbols: int, beta: float) -> np.ndarray:
    weights = np.arange(1.0, num_symbols + 1) ** -beta
    return weights / weights.sum()


def draw(probabilities: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Symbols by inversion; never one of probability zero."""
    ladder = np.cumsum(probabilities)
    return np.searchsorted(ladder, uniform * ladder[-1], side="right").astype(np.int32)


def walk(start: np.ndarray, ladders: np.ndarray, length: int, num_rows: int, rng: np.random.Generator) -> np.ndarray:
    """Sequences of a chain, all at once; `ladders` are cumulative transition probabilities by context."""
    symbols = len(start)
    order = round(float(np.log(len(ladders)) / np.log(symbols))) if symbols > 1 else 1
    rows = np.empty((num_rows, length), dtype=np.int32)
    context = np.zeros(num_rows, dtype=np.int64)
    for position in range(length):
        uniform = rng.random(num_rows)
        if position < order:
            rows[:, position] = draw(start, uniform)
        else:
            ladder = ladders[context]
            rows[:, position] = (ladder <= (uniform * ladder[:, -1])[:, None]).sum(axis=1)
        context = (context * symbols + rows[:, position]) % len(ladders)
    return rows


def _check_sizes(num_symbols: int, rows: int, beta: float) -> None:
    if num_symbols < 2 or rows < 1:
        raise StudyError(f"source.num_symbols >= 2 and source.rows >= 1 are needed, not {num_symbols} and {rows}")
    if beta < 0:
        raise StudyError(f"source.beta must not be negative, not {beta}; 0 is the uniform law")


@dataclass(frozen=True, kw_only=True)
class Zipf:
    """Independent symbols with p_k proportional to k^-beta; beta = 0 is uniform. Every lineage draws its own rows."""

    num_symbols: int = 200
    beta: float = 1.2
    rows: int = 100
    rebuilds: ClassVar[bool] = True
    random: ClassVar[bool] = True
    knows: ClassVar[frozenset[str]] = frozenset({"probabilities"})
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _check_sizes(self.num_symbols, self.rows, self.beta)

    @property
    def num_rows(self) -> int:
        return self.rows

    def draw(self, *, seed: Seed) -> SymbolWorld:
        probabilities = zipf(self.num_symbols, self.beta)
        rows = draw(probabilities, seed.generator().random(self.rows))
        return SymbolWorld(train=Rows(symbol=rows), test=Rows(symbol=np.zeros(0, dtype=np.int32)), probabilities=probabilities)


@lru_cache(maxsize=16)
def chain(num_symbols: int, beta: float) -> np.ndarray:
    """A fixed chain: from symbol i the next is a Zipf law over the symbols in an order of i's own."""
    rng = np.random.default_rng([20240401, num_symbols])
    law = zipf(num_symbols, beta)
    return np.stack([law[rng.permutation(num_symbols)] for _ in range(num_symbols)])


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Sequences of `length` symbols of a Markov chain: from each symbol, the next follows a Zipf law in an order of its own."""

    num_symbols: int = 20
    beta: float = 1.2
    length: int = 20
    rows: int = 100
    rebuilds: ClassVar[bool] = True
    random: ClassVar[bool] = True
    knows: ClassVar[frozenset[str]] = frozenset({"transitions"})
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _check_sizes(self.num_symbols, self.rows, self.beta)
        if self.length < 2:
            raise StudyError(f"source.length must be at least 2, not {self.length}")

    @property
    def num_rows(self) -> int:
        return self.rows

    def draw(self, *, seed: Seed) -> SymbolWorld:
        transitions = chain(self.num_symbols, self.beta)
        start = np.full(self.num_symbols, 1 / self.num_symbols)
        rows = walk(start, np.cumsum(transitions, axis=1), self.length, self.rows, seed.generator())
        nothing = Rows(tokens=np.zeros((0, self.length), dtype=np.int32))
        return SymbolWorld(train=Rows(tokens=rows), test=nothing, probabilities=start, transitions=transitions)

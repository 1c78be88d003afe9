"""Models that count: symbol frequencies, and n-grams."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from refeed.core.errors import StudyError
from refeed.core.protocols import Data
from refeed.core.seeds import Seed
from refeed.families.categorical.source import SymbolWorld

LARGEST = 2**22  # entries of an n-gram table


@dataclass(frozen=True, eq=False)
class SymbolModel:
    probabilities: np.ndarray  # (symbols,)

    def save(self, folder: Path) -> None:
        np.save(folder / "probabilities.npy", self.probabilities, allow_pickle=False)


@dataclass(frozen=True, eq=False)
class ChainModel:
    """Transition probabilities by context; a context that was never left is refitted as the symbols' overall frequencies."""

    start: np.ndarray  # (symbols,), of the first symbols of a sequence
    transitions: np.ndarray  # (symbols ** order, symbols)
    length: int

    def save(self, folder: Path) -> None:
        np.save(folder / "transitions.npy", self.transitions, allow_pickle=False)
        np.save(folder / "start.npy", np.append(self.start, self.length), allow_pickle=False)


def _smoothing(value: float) -> None:
    if value < 0:
        raise StudyError(f"learner.smoothing must not be negative, not {value}")


@dataclass(frozen=True, kw_only=True)
class Frequencies:
    """Each symbol's share of the rows: maximum likelihood, or with `smoothing` added to every count."""

    smoothing: float = 0.0
    provides: ClassVar[frozenset[str]] = frozenset({"probabilities", "log_prob"})
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _smoothing(self.smoothing)

    def fit(self, data: Data, *, world: SymbolWorld, seed: Seed, start: object = None) -> SymbolModel:
        counts = np.full(len(world.probabilities), self.smoothing)
        for rows, weight in data:
            counts += weight * np.bincount(rows["symbol"], minlength=len(counts))
        return SymbolModel(counts / counts.sum())

    def load(self, folder: Path) -> SymbolModel:
        return SymbolModel(np.load(folder / "probabilities.npy", allow_pickle=False))


@dataclass(frozen=True, kw_only=True)
class NGram:
    """The next symbol given the `order` symbols before it, by counting; `smoothing` is added to every count."""

    order: int = 1
    smoothing: float = 0.0
    provides: ClassVar[frozenset[str]] = frozenset({"chain", "log_prob"})
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _smoothing(self.smoothing)
        if self.order < 1:
            raise StudyError(f"learner.order must be at least 1, not {self.order}")

    def fit(self, data: Data, *, world: SymbolWorld, seed: Seed, start: object = None) -> ChainModel:
        symbols, length = len(world.probabilities), world.train["tokens"].shape[1]
        contexts = symbols**self.order
        if contexts * symbols > LARGEST or length <= self.order:
            raise StudyError(
                f"an n-gram of order {self.order} over {symbols} symbols needs {contexts * symbols:,} counts (at most {LARGEST:,}) "
                f"and sequences longer than the order, not {length}.",
                hint="Type: --set learner.order=1",
            )
        counts = np.full((contexts, symbols), self.smoothing)
        first, overall = np.zeros(symbols), np.zeros(symbols)
        for rows, weight in data:
            tokens = rows["tokens"].astype(np.int64)
            context = np.zeros((len(tokens), length - self.order), dtype=np.int64)
            for back in range(self.order):
                context = context * symbols + tokens[:, back : length - self.order + back]
            pairs = (context * symbols + tokens[:, self.order :]).ravel()
            counts += weight * np.bincount(pairs, minlength=contexts * symbols).reshape(contexts, symbols)
            first += weight * np.bincount(tokens[:, : self.order].ravel(), minlength=symbols)
            overall += weight * np.bincount(tokens.ravel(), minlength=symbols)
        left = counts.sum(axis=1, keepdims=True)
        transitions = np.where(left > 0, counts / np.where(left > 0, left, 1.0), overall / overall.sum())
        return ChainModel(first / first.sum(), transitions, length)

    def load(self, folder: Path) -> ChainModel:
        start = np.load(folder / "start.npy", allow_pickle=False)
        return ChainModel(start[:-1], np.load(folder / "transitions.npy", allow_pickle=False), int(start[-1]))

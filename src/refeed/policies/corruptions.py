"""Corruptions of growing strength: what if the quality of synthetic data degrades from generation to generation?

The strength in generation g is `strength` times `growth`^(g - 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from refeed.core.errors import StudyError
from refeed.core.rows import Column, Ragged, Rows
from refeed.core.seeds import Seed

ScoreOf = Callable[[str], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Noise on `column` (all columns where not given): a fraction of what varies in it.

    Real-valued columns get normal noise of `strength` times their standard deviation; bytes (pixels) the same, rounded and clipped
    to 0..255; sequences of whole numbers (tokens) have that fraction of their values, all but the last, replaced by values drawn
    from the same rows.
    """

    strength: float = 0.1
    growth: float = 1.0
    column: str | None = None

    def __post_init__(self) -> None:
        _not_negative("strength", self.strength)
        _not_negative("growth", self.growth)

    def candidates(self, num_rows: int) -> int:
        return num_rows

    def apply(self, rows: Rows, num_rows: int, *, score_of: ScoreOf, generation: int, seed: Seed) -> Rows:
        strength = self.strength * self.growth ** (generation - 1)
        names = [name for name in rows.names if not name.startswith("refeed_")] if self.column is None else [self.column]
        if self.column is not None and self.column not in rows.names:
            raise StudyError(f"rows have no column {self.column!r}.", hint=f"Columns: {', '.join(rows.names)}.")
        return rows.with_columns(**{name: _noisy(rows[name], strength, (seed / name).generator()) for name in names})


@dataclass(frozen=True, kw_only=True)
class Shuffle:
    """A fraction `strength` of the sequences has its values in random order, all but the last."""

    strength: float = 0.1
    growth: float = 1.0

    def __post_init__(self) -> None:
        _not_negative("strength", self.strength)
        _not_negative("growth", self.growth)

    def candidates(self, num_rows: int) -> int:
        return num_rows

    def apply(self, rows: Rows, num_rows: int, *, score_of: ScoreOf, generation: int, seed: Seed) -> Rows:
        rng, strength = seed.generator(), self.strength * self.growth ** (generation - 1)
        columns: dict[str, Column] = {}
        for name in rows.names:
            column = rows[name]
            if isinstance(column, Ragged):
                values = column.values.copy()
                for row in np.flatnonzero(rng.random(len(column)) < strength):
                    rng.shuffle(values[column.offsets[row] : column.offsets[row + 1] - 1])
                columns[name] = Ragged(values, column.offsets)
        if not columns:
            raise StudyError("these rows hold no sequences to shuffle.", hint="Use 'noise'.")
        return rows.with_columns(**columns)


@dataclass(frozen=True, kw_only=True)
class DropModes:
    """The rows are cut into `modes` equal groups by `score`; of the lowest groups a fraction `strength` of all is never kept."""

    score: str
    modes: int = 10
    strength: float = 0.1
    growth: float = 1.0

    def __post_init__(self) -> None:
        _not_negative("strength", self.strength)
        _not_negative("growth", self.growth)
        if self.modes < 2:
            raise StudyError(f"modes must be at least 2, not {self.modes}.", at="modes")

    def candidates(self, num_rows: int) -> int:
        return self.modes * num_rows  # at most all groups but one are dropped

    def apply(self, rows: Rows, num_rows: int, *, score_of: ScoreOf, generation: int, seed: Seed) -> Rows:
        dropped = min(self.modes - 1, math.floor(self.modes * self.strength * self.growth ** (generation - 1) + 1e-9))
        scores = score_of(self.score)
        kept = np.sort(np.argsort(scores, kind="stable")[dropped * len(rows) // self.modes :])
        index = kept[np.sort(seed.generator().choice(len(kept), size=num_rows, replace=False))]
        return rows.take(index).with_columns(refeed_row=index.astype(np.int64), refeed_score=scores[index].astype(np.float64))


def _noisy(column: Column, strength: float, rng: np.random.Generator) -> Column:
    values = column.values if isinstance(column, Ragged) else column
    if values.dtype.kind == "f":
        noisy = values + strength * float(values.std()) * rng.standard_normal(values.shape)
        noisy = noisy.astype(values.dtype)
    elif values.dtype == np.uint8 and not isinstance(column, Ragged):
        noise = strength * float(values.std()) * rng.standard_normal(values.shape)
        noisy = np.clip(np.rint(values + noise), 0, 255).astype(np.uint8)
    else:
        chosen = rng.random(values.shape) < strength
        if isinstance(column, Ragged):
            chosen[(column.offsets[1:] - 1)[column.lengths > 0]] = False
        noisy = np.where(chosen, rng.choice(values.reshape(-1), size=values.shape), values).astype(values.dtype)
    return Ragged(noisy, column.offsets) if isinstance(column, Ragged) else noisy


def _not_negative(name: str, value: float) -> None:
    if not value >= 0:
        raise StudyError(f"{name} must not be negative, not {value}.", at=name)

"""Filters: wrappers that look at sampled rows and choose among them. Each asks for more rows than it returns.

A score is a name that the family knows (`World.score`), higher is better: how a verifier, a reward or a detector sees a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from refeed.core.errors import Stopped, StudyError
from refeed.core.rows import Ragged, Rows
from refeed.core.seeds import Seed
from refeed.policies.parts import at_least

ScoreOf = Callable[[str], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class TopFraction:
    """The best `fraction` of the sampled rows by `score`: a verifier that lets only so many pass."""

    score: str
    fraction: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise StudyError(f"fraction must be in (0, 1], not {self.fraction}.", at="fraction")

    def candidates(self, num_rows: int) -> int:
        return math.ceil(num_rows / self.fraction)

    def apply(self, rows: Rows, num_rows: int, *, score_of: ScoreOf, generation: int, seed: Seed) -> Rows:
        scores = score_of(self.score)
        return _chosen(rows, np.sort(np.argsort(-scores, kind="stable")[:num_rows]), scores)


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """The first rows that score at least `least`, of `oversample` times as many as are needed."""

    score: str
    least: float
    oversample: float = 4.0

    def __post_init__(self) -> None:
        _oversamples(self.oversample)

    def candidates(self, num_rows: int) -> int:
        return math.ceil(self.oversample * num_rows)

    def apply(self, rows: Rows, num_rows: int, *, score_of: ScoreOf, generation: int, seed: Seed) -> Rows:
        scores = score_of(self.score)
        return _first(rows, scores >= self.least, num_rows, scores, f"score {self.least:g} or more by {self.score!r}")


@dataclass(frozen=True, kw_only=True)
class BestOf:
    """Of every `of` sampled rows the one that scores best: best-of-K by a reward."""

    score: str
    of: int = 4

    def __post_init__(self) -> None:
        at_least("of", self.of, 1)

    def candidates(self, num_rows: int) -> int:
        return self.of * num_rows

    def apply(self, rows: Rows, num_rows: int, *, score_of: ScoreOf, generation: int, seed: Seed) -> Rows:
        scores = score_of(self.score)
        best = scores.reshape(num_rows, self.of).argmax(axis=1)
        return _chosen(rows, np.arange(num_rows) * self.of + best, scores)


@dataclass(frozen=True, kw_only=True)
class Resample:
    """Rows drawn in proportion to (share of rows that score no better)^`power`, each at most `most` times: for any score."""

    score: str
    power: float = 10.0
    most: int = 3
    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        at_least("most", self.most, 1)

    def candidates(self, num_rows: int) -> int:
        return num_rows

    def apply(self, rows: Rows, num_rows: int, *, score_of: ScoreOf, generation: int, seed: Seed) -> Rows:
        scores = score_of(self.score)
        rank = np.searchsorted(np.sort(scores), scores, side="right") / len(scores)
        return _chosen(rows, _drawn(self.power * np.log(rank), self.most, num_rows, seed), scores)


@dataclass(frozen=True, kw_only=True)
class Detector:
    """Importance resampling by a trained detector: rows drawn in proportion to (1 - q)^`power`, each at most `most` times.

    q is the probability that the row is synthetic, by a classifier between the real training rows and the sampled ones that is
    trained anew in every generation (`refeed.core.detector`; cross-fitted). The power and the bound are those of Drayson, Yilmaz
    and Lampos (2025, arXiv:2502.15654): b = 10, at most 3 copies.
    """

    power: float = 10.0
    most: int = 3

    def __post_init__(self) -> None:
        at_least("most", self.most, 1)

    def candidates(self, num_rows: int) -> int:
        return num_rows

    def apply(self, rows: Rows, num_rows: int, *, score_of: ScoreOf, generation: int, seed: Seed) -> Rows:
        scores = score_of("detector")
        log_not_q = -np.logaddexp(0.0, -scores)
        return _chosen(rows, _drawn(self.power * log_not_q, self.most, num_rows, seed), scores)


@dataclass(frozen=True, kw_only=True)
class Distinct:
    """The first rows that resemble no earlier one, of `oversample` times as many as are needed.

    Rows are equal when all their values are; with `overlap` below 1, sequences that share at least that fraction of their runs of
    `run` values (Jaccard index) count as repeats too.
    """

    overlap: float = 1.0
    run: int = 5
    oversample: float = 1.5

    def __post_init__(self) -> None:
        _oversamples(self.oversample)
        at_least("run", self.run, 1)
        if not 0 < self.overlap <= 1:
            raise StudyError(f"overlap must be in (0, 1], not {self.overlap}.", at="overlap")

    def candidates(self, num_rows: int) -> int:
        return math.ceil(self.oversample * num_rows)

    def apply(self, rows: Rows, num_rows: int, *, score_of: ScoreOf, generation: int, seed: Seed) -> Rows:
        new = np.zeros(len(rows), dtype=bool)
        seen: set[tuple[bytes, ...]] = set()
        holders: dict[bytes, list[int]] = {}
        runs: list[frozenset[bytes]] = []
        for row in range(len(rows)):
            content = tuple(np.asarray(rows[name][row]).tobytes() for name in rows.names if not name.startswith("refeed_"))
            mine = self._runs(rows, row) if self.overlap < 1 else frozenset()
            near = {other for part in mine for other in holders.get(part, ())}
            if content in seen or any(len(mine & runs[o]) >= self.overlap * len(mine | runs[o]) for o in near):
                runs.append(frozenset())
                continue
            seen.add(content)
            runs.append(mine)
            for part in mine:
                holders.setdefault(part, []).append(row)
            new[row] = True
        return _first(rows, new, num_rows, None, "resemble no earlier one")

    def _runs(self, rows: Rows, row: int) -> frozenset[bytes]:
        column = next((rows[name] for name in rows.names if isinstance(rows[name], Ragged)), None)
        if column is None:
            raise StudyError("near-duplicates are known for sequences only.", hint="Leave 'overlap' at 1.")
        values = column[row]
        return frozenset(values[i : i + self.run].tobytes() for i in range(max(1, len(values) - self.run + 1)))


@dataclass(frozen=True, kw_only=True)
class Length:
    """The first sequences of `least` to `most` values, of `oversample` times as many as are needed."""

    least: int = 1
    most: int | None = None
    oversample: float = 2.0

    def __post_init__(self) -> None:
        _oversamples(self.oversample)
        at_least("most", self.most, self.least)

    def candidates(self, num_rows: int) -> int:
        return math.ceil(self.oversample * num_rows)

    def apply(self, rows: Rows, num_rows: int, *, score_of: ScoreOf, generation: int, seed: Seed) -> Rows:
        column = next((rows[name] for name in rows.names if isinstance(rows[name], Ragged)), None)
        if column is None:
            raise StudyError("these rows have no length: only sequences do.")
        lengths = column.lengths
        good = (lengths >= self.least) & (lengths <= (lengths.max(initial=0) if self.most is None else self.most))
        return _first(rows, good, num_rows, lengths.astype(float), f"have {self.least} to {self.most or 'any number of'} values")


def _drawn(log_p: np.ndarray, most: int, num_rows: int, seed: Seed) -> np.ndarray:
    """`num_rows` sorted positions without replacement in proportion to p, of a list that holds every position `most` times.

    The largest of log p + Gumbel noise are such a draw (Efraimidis and Spirakis 2006 in logarithms, where p does not underflow).
    """
    copies = np.repeat(np.arange(len(log_p)), most)
    keys = log_p[copies] - np.log(-np.log(seed.generator().random(len(copies))))
    return np.sort(copies[np.argsort(-keys, kind="stable")[:num_rows]])


def _chosen(rows: Rows, index: np.ndarray, scores: np.ndarray | None) -> Rows:
    columns = {"refeed_row": index.astype(np.int64)}
    if scores is not None:
        columns["refeed_score"] = scores[index].astype(np.float64)
    return rows.take(index).with_columns(**columns)


def _first(rows: Rows, good: np.ndarray, num_rows: int, scores: np.ndarray | None, which: str) -> Rows:
    index = np.flatnonzero(good)
    if len(index) < num_rows:
        raise Stopped(
            "short sample", f"{len(index)} of {len(rows)} sampled rows {which}, {num_rows} are needed; raise 'oversample'"
        )
    return _chosen(rows, index[:num_rows], scores)


def _oversamples(value: float) -> None:
    if not value >= 1:
        raise StudyError(f"oversample must be at least 1, not {value}.", at="oversample")

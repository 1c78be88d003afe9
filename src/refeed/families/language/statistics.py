"""Statistics of texts as tokens, in NumPy: how varied, how repetitive, how much of it is copied. Pure functions of stories."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator

import numpy as np

from refeed.core.rows import Ragged


def first_tokens(stories: Ragged, budget: int) -> Ragged:
    """Whole stories from the front, as many as stay within `budget` tokens; at least one."""
    num = max(1, int(np.searchsorted(stories.offsets[1:], budget, side="right")))
    return stories.take(np.arange(min(num, len(stories))))


def runs(stories: Ragged, order: int) -> np.ndarray:
    """The codes of all runs of `order` neighbouring tokens within stories, in order: int64, equal for equal runs.

    Up to three tokens of at most 16 bits a code is exact; else it is a 63-bit polynomial hash: among n different runs two share a
    code with a probability below n^2 / 2^63.
    """
    exact = order <= 3 and stories.values.dtype.itemsize <= 2
    values = stories.values.astype(np.uint64)
    num = len(values) - order + 1
    if num < 1:
        return np.zeros(0, dtype=np.int64)
    factor = np.uint64(65536 if exact else 0x9E3779B97F4A7C15)
    codes = np.zeros(num, dtype=np.uint64)
    for place in range(order):
        codes = codes * factor + values[place : place + num] + np.uint64(0 if exact else 1)
    if not exact:
        codes ^= codes >> np.uint64(31)
        codes = (codes * np.uint64(0xBF58476D1CE4E5B9)) >> np.uint64(1)
    story = np.repeat(np.arange(len(stories)), stories.lengths)
    return codes[story[:num] == story[order - 1 :]].astype(np.int64)


def effective_support(counts: np.ndarray) -> float:
    """exp(-sum p log p) with p = counts / total: between 1 and the number of things counted."""
    return float(np.exp(entropy(counts)))


def entropy(counts: np.ndarray) -> float:
    """-sum p log p in nats, p = counts / total (plug-in: too low by about (things seen - 1) / (2 total))."""
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


def zipf_slope(counts: np.ndarray, *, least: int = 5) -> float:
    """s of count ~ rank^-s: least squares of log count on log rank, over what was seen `least` times; NaN below three of these."""
    kept = np.sort(counts[counts >= least])[::-1].astype(float)
    if len(kept) < 3:
        return float("nan")
    return float(-np.polyfit(np.log(np.arange(1, len(kept) + 1)), np.log(kept), 1)[0])


def unseen_mass(codes: np.ndarray) -> float:
    """Good and Turing's estimate of the probability of what was not seen: things seen once over all (Good 1953)."""
    _, counts = np.unique(codes, return_counts=True)
    return float((counts == 1).sum() / max(1, len(codes)))


def distinct(stories: Ragged, *, order: int, budget: int) -> float:
    """Distinct runs of `order` tokens within stories over all of them, in the first `budget` tokens; NaN where there is none."""
    ends = np.minimum(stories.offsets, budget)
    codes = runs(Ragged(stories.values[:budget], ends), order)
    return len(np.unique(codes)) / len(codes) if len(codes) else float("nan")


def copied(stories: Ragged, given: Ragged, *, order: int) -> float:
    """The share of runs of `order` tokens that occur in `given` too; NaN where there is none."""
    codes = runs(stories, order)
    return float(np.isin(codes, runs(given, order)).mean()) if len(codes) else float("nan")


def self_bleu(stories: Ragged, *, order: int = 4, judged: int = 200) -> float:
    """The mean BLEU of each of the first `judged` stories against all the others among them (Zhu et al., arXiv:1802.01886).

    The geometric mean over n = 1..`order` of clipped n-gram precision, a missing match counting as one half; the brevity penalty
    is that of the nearest length. 1 where every story has its double. NaN below two stories.
    """
    stories = stories.take(np.arange(min(judged, len(stories))))
    if len(stories) < 2:
        return float("nan")
    logs = np.zeros(len(stories))
    for n in range(1, order + 1):
        counts = [Counter(runs(stories.take(np.array([row])), n).tolist()) for row in range(len(stories))]
        best: dict[int, tuple[int, int, int]] = {}  # run -> the highest count, whose it is, the highest of the others
        for row, found in enumerate(counts):
            for code, count in found.items():
                high, owner, second = best.get(code, (0, -1, 0))
                best[code] = (count, row, high) if count > high else (high, owner, max(second, count))
        for row, found in enumerate(counts):
            total = sum(found.values())
            clipped = sum(min(c, best[code][2] if best[code][1] == row else best[code][0]) for code, c in found.items())
            logs[row] += np.log(max(clipped, 0.5) / total) / order if total else 0.0
    lengths = stories.lengths.astype(float)
    penalty = np.zeros(len(stories))
    for row in range(len(stories)):
        others = np.delete(lengths, row)
        nearest = others[np.abs(others - lengths[row]).argmin()]
        penalty[row] = min(0.0, 1 - nearest / max(lengths[row], 1.0))
    return float(np.exp(logs + penalty).mean())


def compression_ratio(text: bytes) -> float:
    """Bytes over bytes after zlib at its best (a window of 32 KiB): higher is more repetitive. NaN of no text."""
    return len(text) / len(zlib.compress(text, 9)) if text else float("nan")


def near_duplicates(stories: Ragged, *, order: int = 5, overlap: float = 0.5) -> float:
    """The share of stories of which at least `overlap` of the runs of `order` tokens occur in one and the same earlier story."""
    holders: dict[int, list[int]] = {}
    repeats = 0
    for row, mine in enumerate(_run_sets(stories, order)):
        repeats += _meets(mine, holders, overlap)
        for code in mine:
            holders.setdefault(code, []).append(row)
    return repeats / max(1, len(stories))


def near_copies(stories: Ragged, given: Ragged, *, order: int = 5, overlap: float = 0.5) -> float:
    """The share of stories of which at least `overlap` of the runs of `order` tokens occur in one and the same story of `given`."""
    holders: dict[int, list[int]] = {}
    for row, theirs in enumerate(_run_sets(given, order)):
        for code in theirs:
            holders.setdefault(code, []).append(row)
    return sum(_meets(mine, holders, overlap) for mine in _run_sets(stories, order)) / max(1, len(stories))


def _run_sets(stories: Ragged, order: int) -> Iterator[set[int]]:
    return (set(runs(stories.take(np.array([row])), order).tolist()) for row in range(len(stories)))


def _meets(mine: set[int], holders: dict[int, list[int]], overlap: float) -> bool:
    """Whether one story holds at least `overlap` of `mine`."""
    met = Counter(other for code in mine for other in holders.get(code, ()))
    return bool(met) and max(met.values()) >= overlap * len(mine)


def recall_by_rarity(made: np.ndarray, real: np.ndarray, *, groups: int = 10) -> np.ndarray:
    """What share of the words of each rarity still occurs: (groups,), from the commonest tenth of the words to the rarest.

    `made` and `real` are counts by word; the words are those that `real` has, in groups of equally many. NaN for an empty group.
    """
    known = np.flatnonzero(real)
    order = known[np.argsort(-real[known], kind="stable")]
    parts = np.array_split(order, groups)
    return np.array([float((made[part] > 0).mean()) if len(part) else float("nan") for part in parts])

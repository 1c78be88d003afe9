"""The audit of rows as they are written: is a shard as varied as the real rows, and do its sequences end as real ones do?

It is part of a shard's manifest, so it is there for every generation, also after rows were trimmed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refeed.core.rows import Ragged, Rows

BLOCK = 2**20  # bytes of rows hashed at a time, with some thirty times that beside them


def audit(rows: Rows, *, closing: int | None = None) -> dict[str, Any]:
    """What can be said of any rows, as JSON.

    `content`: a hash of all rows together: equal for equal rows, whatever made them. `repeats`: the share of rows that equal an
    earlier one. For sequences also `mean_length`, and `ended`: the share that ends with the value `closing`; real rows give none
    and are asked for theirs: the value that ends more than half of them (absent where there is none).
    """
    hashes = row_hashes(rows)
    found: dict[str, Any] = {"content": f"{_combined(hashes):016x}"}
    if len(rows):
        found["repeats"] = 1 - len(np.unique(hashes)) / len(rows)
    sequences = next((rows[name] for name in rows.names if isinstance(rows[name], Ragged)), None)
    if sequences is None or not len(rows):
        return found
    found["mean_length"] = float(sequences.lengths.mean())
    if sequences.values.dtype.kind in "iu" and sequences.values.ndim == 1 and (sequences.lengths > 0).any():
        last = sequences.values[sequences.offsets[1:][sequences.lengths > 0] - 1]
        if closing is None:
            values, counts = np.unique(last, return_counts=True)
            if 2 * counts.max() > len(rows):
                closing = int(values[counts.argmax()])
        if closing is not None:
            found |= {"closing": closing, "ended": float((last == closing).sum() / len(rows))}
    return found


def row_hashes(rows: Rows) -> np.ndarray:
    """A 64-bit hash of every row's values, refeed's own columns aside: (rows,) uint64. Equal rows have equal hashes."""
    step = max(1, int(len(rows) * BLOCK / max(rows.nbytes, 1)))
    blocks = [_hashes(rows, first, min(first + step, len(rows))) for first in range(0, len(rows), step)]
    return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.uint64)


def _hashes(rows: Rows, first: int, last: int) -> np.ndarray:
    """The hashes of the rows from `first` to before `last`."""
    total = np.zeros(last - first, dtype=np.uint64)
    for name in sorted(rows.names):
        if name.startswith("refeed_"):
            continue
        column = rows[name]
        offsets = column.offsets[first : last + 1] if isinstance(column, Ragged) else np.arange(first, last + 1)
        values = (column.values if isinstance(column, Ragged) else column)[offsets[0] : offsets[-1]]
        offsets = offsets - offsets[0]
        lengths = np.diff(offsets)
        weights = _mixed(np.arange(lengths.max(initial=0), dtype=np.uint64)) | np.uint64(1)
        place = np.arange(len(values)) - np.repeat(offsets[:-1], lengths)
        sums = np.zeros(len(values) + 1, dtype=np.uint64)  # sum over a row of code x weight of its place: multilinear hashing
        np.cumsum(_codes(values) * weights[place], out=sums[1:])
        own = sums[offsets[1:]] - sums[offsets[:-1]] + lengths.astype(np.uint64)
        total = _mixed(total ^ _mixed(own))
    return total


def _codes(values: np.ndarray) -> np.ndarray:
    """A 64-bit code of each entry along the first axis."""
    if not len(values):
        return np.zeros(0, dtype=np.uint64)
    if values.dtype.kind in "OSU":
        return np.array([_hash_text(str(value)) for value in values], dtype=np.uint64)
    flat = np.ascontiguousarray(values).reshape(len(values), -1)
    if flat.shape[1] == 1 and flat.dtype.kind in "iub":
        return flat[:, 0].astype(np.uint64, casting="unsafe")
    raw = flat.view(np.uint8)
    missing = -raw.shape[1] % 8
    words = (np.pad(raw, ((0, 0), (0, missing))) if missing else raw).view(np.uint64)
    weights = _mixed(np.arange(words.shape[1], dtype=np.uint64)) | np.uint64(1)
    step = max(1, 2**20 // max(1, words.shape[1]))  # a few MiB at a time
    return np.concatenate(
        [(_mixed(words[i : i + step]) * weights).sum(axis=1, dtype=np.uint64) for i in range(0, len(words), step)]
    )


def _hash_text(text: str) -> int:
    from hashlib import blake2b

    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def _combined(hashes: np.ndarray) -> int:
    place = np.arange(len(hashes), dtype=np.uint64)
    return int(_mixed(hashes + _mixed(place)).sum(dtype=np.uint64)) if len(hashes) else 0


def _mixed(codes: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): a bijection of 64-bit words without visible structure."""
    codes = (codes + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    codes = (codes ^ (codes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    codes = (codes ^ (codes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return codes ^ (codes >> np.uint64(31))

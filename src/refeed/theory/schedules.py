"""What the laws share: parameters that are a number or one number a generation, and the generations asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from refeed.theory.registry import require

Schedule = float | Sequence[float]
Generations = int | Sequence[int] | None


def horizon(n: Generations, *schedules: Schedule) -> int:
    """The last generation needed: from `n`, else from the longest schedule."""
    lengths = [len(schedule) for schedule in schedules if np.ndim(schedule)]  # type: ignore[arg-type]
    if n is None:
        require(bool(lengths), "the number of generations is unknown: give n, or T as a list with one entry a generation")
        last = min(lengths)
    else:
        asked = np.atleast_1d(np.asarray(n))
        require(asked.size > 0 and bool((asked >= 1).all()), f"generations are counted from 1, not {n}")
        require(bool((asked == asked.astype(int)).all()), f"n must hold whole numbers, not {n}")
        last = int(asked.max())
    for length in lengths:
        require(length >= last, f"generation {last} is asked for, but a schedule has {length} entries")
    return last


def by_generation(value: Schedule, last: int) -> np.ndarray:
    """`value` as an array with one entry for each generation 1..last."""
    array = np.asarray(value, dtype=float)
    return np.full(last, float(array)) if array.ndim == 0 else array[:last]


def at(curve: np.ndarray, n: Generations) -> np.ndarray:
    """The whole curve for a number (or None), the entries asked for where `n` is a list."""
    return curve if n is None or np.ndim(n) == 0 else curve[np.asarray(n, dtype=int) - 1]

"""Kernel density estimates refitted on their own samples: the error by characteristic functions, never by pairs of rows.

A kernel estimate is its rows. Under accumulate they are not kept either: row i is a function of the lineage's key and i. It is h
times a normal number, hashed from i, away from its parent, hashed too, among the rows of the generations before, and so on back
to a real row, about ln n steps. So memory knows neither T nor n, and time pays for the walks.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.special import ndtri

from refeed.theory.registry import require
from refeed.theory.schedules import Generations, Schedule, by_generation, horizon
from refeed.theory.simulate.radial import Randomness

BLOCK = 4096  # rows in memory at once


def kde(
    *,
    T: Schedule,
    h: float,
    n: Generations = None,
    policy: Literal["replace", "accumulate"] = "replace",
    runs: int,
    seed: Randomness = 0,
) -> np.ndarray:
    """Integrated squared error of a Gaussian kernel estimate of N(0, 1), bandwidth h, shape (runs, n).

    Exact up to the quadrature (1e-10), and under accumulate as far as SplitMix64 is random. O(T) memory under replace, a few blocks
    of rows under accumulate; the empirical characteristic function is a sum, so each row is read once, and pairs of rows never.
    """
    rng, last = np.random.default_rng(seed), horizon(n, T)
    rows = by_generation(T, last).astype(int)
    require(h > 0 and rows.min() >= 1, f"h > 0 and T >= 1 are needed, not h = {h} and T = {rows.min()}")
    require(policy in ("replace", "accumulate"), f"policy must be 'replace' or 'accumulate', not {policy!r}")
    errors = np.empty((runs, last))
    one = _accumulate if policy == "accumulate" else _replace
    for errors_of_run in errors:
        one(rng, rows, h, errors_of_run)
    return errors


def _replace(rng: np.random.Generator, rows: np.ndarray, h: float, out: np.ndarray) -> None:
    pool = rng.standard_normal(rows[0])
    t = _grid(h, float(np.abs(pool).max()), len(rows))
    for g, count in enumerate(rows):
        if g:
            pool = pool[rng.integers(len(pool), size=count)] + h * rng.standard_normal(count)
        out[g] = _error(_characteristic(pool, t) / count, t, h)


def _accumulate(rng: np.random.Generator, rows: np.ndarray, h: float, out: np.ndarray) -> None:
    key = rng.integers(2**64, dtype=np.uint64)
    before = np.concatenate([[0], np.cumsum(rows)])  # rows of all generations before each
    reach = max(float(np.abs(_rows(key, before, h, block)).max()) for block in _blocks(0, rows[0]))
    t = _grid(h, reach, len(rows))
    total = np.zeros(len(t), dtype=complex)
    for g in range(len(rows)):
        for block in _blocks(before[g], before[g + 1]):
            total += _characteristic(_rows(key, before, h, block), t)
        out[g] = _error(total / before[g + 1], t, h)


def _blocks(start: int, stop: int) -> list[np.ndarray]:
    return [np.arange(at, min(at + BLOCK, stop), dtype=np.uint64) for at in range(start, stop, BLOCK)]


def _rows(key: np.uint64, before: np.ndarray, h: float, numbers: np.ndarray) -> np.ndarray:
    """The rows of these numbers: each walks up its ancestors to a real one, adding h times a normal number at every step."""
    values, walking, at = np.zeros(len(numbers)), np.arange(len(numbers)), numbers
    while len(walking):
        normal = ndtri(_uniform(key, 2 * at))
        real = at < np.uint64(before[1])
        values[walking] += np.where(real, normal, h * normal)
        walking, at = walking[~real], at[~real]
        pool = before[np.searchsorted(before, at, side="right") - 1]  # rows that its generation could choose from
        at = np.minimum(_uniform(key, 2 * at + np.uint64(1)) * pool, pool - 1).astype(np.uint64)
    return values


def _uniform(key: np.uint64, numbers: np.ndarray) -> np.ndarray:
    """Uniform in (0, 1), a function of key and number: SplitMix64 (Steele, Lea, Flood 2014), the key its start."""
    z = key + (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(float) * 2.0**-53 + 2.0**-54


def _error(psi: np.ndarray, t: np.ndarray, h: float) -> float:
    """Parseval: the integral of |k psi - phi|^2 over 2 pi, k of the kernel, phi of the truth."""
    integrand = np.abs(np.exp(-(h**2) * t**2 / 2) * psi - np.exp(-(t**2) / 2)) ** 2
    return float((t[1] - t[0]) * (integrand.sum() - integrand[0] / 2) / np.pi)


def _grid(h: float, largest: float, generations: int) -> np.ndarray:
    """Steps so fine that the trapezoid rule sees no two rows, at most 2 `reach` apart, alias; to where the kernel has died."""
    reach = largest + 8 * h * np.sqrt(generations)
    step = np.pi / (reach + 8 * max(h, 1.0))
    return np.arange(int(6.5 / min(h, 1.0) / step) + 2) * step


def _characteristic(rows: np.ndarray, t: np.ndarray) -> np.ndarray:
    """sum_x exp(i t x) on an even grid, by powers of exp(i step x), block by block."""
    total = np.zeros(len(t), dtype=complex)
    for start in range(0, len(rows), BLOCK):
        turn = np.exp(1j * (t[1] - t[0]) * rows[start : start + BLOCK])
        power = np.ones(len(turn), dtype=complex)
        for k in range(len(t)):
            total[k] += power.sum()
            power *= turn
    return total

"""Kernel density estimates refitted on their own samples: the error by characteristic functions, never by pairs of rows."""

from __future__ import annotations

from typing import Literal

import numpy as np

from refeed.theory.registry import require
from refeed.theory.schedules import Generations, Schedule, by_generation, horizon
from refeed.theory.simulate.radial import Randomness


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

    Exact up to the quadrature (1e-10). A kernel estimate is its rows, so they are kept: O(T) memory under replace, O(n T) under
    accumulate; the empirical characteristic function is a sum, so each row is read once, and pairs of rows never.
    """
    rng, last = np.random.default_rng(seed), horizon(n, T)
    rows = by_generation(T, last).astype(int)
    require(h > 0 and rows.min() >= 1, f"h > 0 and T >= 1 are needed, not h = {h} and T = {rows.min()}")
    require(policy in ("replace", "accumulate"), f"policy must be 'replace' or 'accumulate', not {policy!r}")
    errors = np.empty((runs, last))
    for errors_of_run in errors:
        _one(rng, rows, h, policy == "accumulate", errors_of_run)
    return errors


def _one(rng: np.random.Generator, rows: np.ndarray, h: float, keep: bool, out: np.ndarray) -> None:
    pool = np.empty(int(rows.sum()) if keep else int(rows.max()))
    size, total = 0, np.zeros(0)
    t = np.zeros(0)
    for g, count in enumerate(rows):
        if g == 0:
            fresh = rng.standard_normal(count)
            t = _grid(h, float(np.abs(fresh).max()) + 8 * h * np.sqrt(len(rows)))
            total = np.zeros(len(t), dtype=complex)
        else:
            fresh = pool[rng.integers(size, size=count)] + h * rng.standard_normal(count)
        if not keep:
            size, total = 0, np.zeros(len(t), dtype=complex)
        pool[size : size + count] = fresh
        size += count
        total += _characteristic(fresh, t)
        kernel, truth = np.exp(-(h**2) * t**2 / 2), np.exp(-(t**2) / 2)
        integrand = np.abs(kernel * total / size - truth) ** 2
        out[g] = (t[1] - t[0]) * (integrand.sum() - integrand[0] / 2) / np.pi


def _grid(h: float, reach: float) -> np.ndarray:
    """Steps so fine that the trapezoid rule sees no two rows, at most 2 `reach` apart, alias; to where the kernel has died."""
    step = np.pi / (reach + 8 * max(h, 1.0))
    return np.arange(int(6.5 / min(h, 1.0) / step) + 2) * step


def _characteristic(rows: np.ndarray, t: np.ndarray) -> np.ndarray:
    """sum_x exp(i t x) on an even grid, by powers of exp(i step x), block by block."""
    total = np.zeros(len(t), dtype=complex)
    for start in range(0, len(rows), 4096):
        turn = np.exp(1j * (t[1] - t[0]) * rows[start : start + 4096])
        power = np.ones(len(turn), dtype=complex)
        for k in range(len(t)):
            total[k] += power.sum()
            power *= turn
    return total

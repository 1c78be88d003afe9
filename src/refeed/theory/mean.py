"""Estimating a mean in a feedback loop, in one dimension with unit variance: err_n = E (m_n - m*)^2.

Times d it is the classical limit (many more rows than features) of least squares with unit noise.
"""

from __future__ import annotations

import numpy as np

from refeed.theory.registry import law, require
from refeed.theory.schedules import Generations, at, horizon

ZETA2 = np.pi**2 / 6


@law("mean.accumulate_subsample", kind="exact")
def accumulate_subsample(*, T: float, M: float, n: Generations) -> np.ndarray:
    """Every row is kept; each mean is taken over M of them, drawn without replacement. T rows are added a generation.

    Recursion on the pool's mean square A and sum of squares Q: V = A + (1/M)(1 - M/N)(Q - N A)/(N - 1), then T rows
    with mean square error V join the pool.
    """
    require(T >= 2 and 1 <= M <= T, f"T >= 2 and 1 <= M <= T are needed, not T = {T:g} and M = {M:g}")
    last = horizon(n)
    curve = np.empty(last)
    pool, mean_square, squares = float(T), 1.0 / T, float(T)
    for generation in range(last):
        error = mean_square + (1 - M / pool) / M * (squares - pool * mean_square) / (pool - 1)
        curve[generation] = error
        mean_square = (pool**2 * mean_square + 2 * pool * T * mean_square + T**2 * (error + 1 / T)) / (pool + T) ** 2
        squares += T * (error + 1)
        pool += T
    return at(curve, n)


@law("mean.accumulate_subsample_limit", kind="classical limit")
def accumulate_subsample_limit(*, budget_ratio: float = 1.0) -> float:
    """M err_n after many generations of accumulate-subsample, for large T and M: zeta(2) + 2 (M/T)(zeta(2) - 1).

    `budget_ratio` is M / T, at most 1. M = T gives 3 zeta(2) - 2 = 2.93: what the fixed training-set size costs.
    """
    require(0 < budget_ratio <= 1, f"budget_ratio = M/T must be in (0, 1], not {budget_ratio}")
    return float(ZETA2 + 2 * budget_ratio * (ZETA2 - 1))


@law("mean.accumulate_limit", kind="classical limit")
def accumulate_limit() -> float:
    """T err_n / s^2 of accumulate after many generations with T rows each: zeta(2) = pi^2 / 6 = 1.645."""
    return float(ZETA2)

"""Natural exponential families with quadratic variance function, refitted by maximum likelihood on their own samples.

V(mu) = v0 + v1 mu + v2 mu^2 is the variance of one draw: v2 = -1 binomial, multinomial, and the variance of a Gaussian; 0
Poisson and the mean of a Gaussian; 1 exponential; 1/a gamma of shape a; -1/m binomial of m trials. The value is E V(mu_n) /
V(mu_0).

Theorem: E[V(mu_n) | mu_{n-1}] = V(mu_{n-1}) + v2 Var(mu_n | past), since V is quadratic and mu a martingale. Replace has
Var = V/T_i; accumulate moves by T_i/N_i of a fresh mean, Var = (T_i/N_i)^2 V/T_i. Both products follow.
"""

from __future__ import annotations

import numpy as np

from refeed.theory.registry import law, require
from refeed.theory.schedules import Generations, Schedule, at, by_generation, horizon


def _factors(change: np.ndarray, v2: float) -> np.ndarray:
    factors = 1 + v2 * change
    require(bool((factors >= 0).all()), f"1 + v2 T_i/N_i^2 >= 0 is needed, but v2 = {v2} makes it {factors.min():.6g}")
    return np.cumprod(factors)


def _rows(T: Schedule, last: int) -> np.ndarray:
    rows = by_generation(T, last)
    require(rows[0] >= 1 and bool((rows >= 0).all()), f"T must be at least 1 (draws a generation), not {rows.min():g}")
    return rows


@law("exponential_family.variance_replace", kind="exact")
def variance_replace(*, T: Schedule, n: Generations = None, v2: float) -> np.ndarray:
    """E V(mu_n)/V(mu_0) under replace: prod (1 + v2/T_i).

    Exact for any family with quadratic variance function; dies out exponentially for v2 < 0, explodes for v2 > 0.
    """
    rows = _rows(T, horizon(n, T))
    require(bool((rows >= 1).all()), f"T must be at least 1 (draws a generation), not {rows.min():g}")
    return at(_factors(1 / rows, v2), n)


@law("exponential_family.variance_accumulate", kind="exact")
def variance_accumulate(*, T: Schedule, n: Generations = None, v2: float) -> np.ndarray:
    """E V(mu_n)/V(mu_0) under accumulate: prod (1 + v2 T_i/N_i^2), bounded away from 0 and infinity.

    Exact for any family with quadratic variance function.
    """
    rows = _rows(T, horizon(n, T))
    return at(_factors(rows / np.cumsum(rows) ** 2, v2), n)


@law("exponential_family.variance_accumulate_limit", kind="exact")
def variance_accumulate_limit(*, T: float, v2: float) -> float:
    """E V(mu_n)/V(mu_0) under accumulate after infinitely many generations of T: sin(x)/x, x = pi sqrt(-v2/T); sinh for v2 > 0.

    Exact limit: Euler's product of prod (1 + v2/(T i^2)). 1 for v2 = 0.
    """
    require(T >= 1 and T + v2 >= 0, f"T >= 1 and T + v2 >= 0 are needed, not T = {T} and v2 = {v2}")
    x = np.pi * np.sqrt(abs(v2) / T)
    if x == 0:
        return 1.0
    return float(np.sinh(x) / x if v2 > 0 else np.sinc(x / np.pi))


@law("exponential_family.mean_error_accumulate", kind="exact")
def mean_error_accumulate(*, T: Schedule, n: Generations = None, v2: float) -> np.ndarray:
    """Var(mu_n)/V(mu_0) under accumulate: (E V(mu_n)/V(mu_0) - 1)/v2, or sum T_i/N_i^2 for v2 = 0 (pi^2/6T in the end).

    Exact: mu is a martingale and V quadratic, so E V(mu_n) = V(mu_0) + v2 Var(mu_n).
    """
    if v2:
        return (variance_accumulate(T=T, n=n, v2=v2) - 1) / v2
    rows = _rows(T, horizon(n, T))
    return at(np.cumsum(rows / np.cumsum(rows) ** 2), n)


@law("exponential_family.mean_error_replace", kind="exact")
def mean_error_replace(*, T: Schedule, n: Generations = None, v2: float) -> np.ndarray:
    """Var(mu_n)/V(mu_0) under replace: (E V(mu_n)/V(mu_0) - 1)/v2, or sum 1/T_i for v2 = 0.

    Exact, by the same identity as under accumulate.
    """
    if v2:
        return (variance_replace(T=T, n=n, v2=v2) - 1) / v2
    rows = _rows(T, horizon(n, T))
    require(bool((rows >= 1).all()), f"T must be at least 1 (draws a generation), not {rows.min():g}")
    return at(np.cumsum(1 / rows), n)

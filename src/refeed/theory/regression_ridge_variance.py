"""How far single runs of replace by ridge scatter about their mean; exact at every size, by second moments of Wishart traces.

No closed form is known to us for accumulate by ridge, where Gram matrices of different generations meet, nor for the
fresh-data loop by ridge: refeed.theory.simulate has both.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from refeed.theory.registry import law
from refeed.theory.regression_ridge import _check
from refeed.theory.regression_variance import gamma_quantile, invariants
from refeed.theory.schedules import Generations, Schedule, at, by_generation, horizon
from refeed.theory.wishart import Statistic, wishart_means, wishart_products


@law("regression.ridge_replace_variance", kind="exact")
def ridge_replace_variance(
    *, T: Schedule, d: int, ridge: float, n: Generations = None, signal: float = 1.0, s: Schedule = 1.0
) -> np.ndarray:
    """Variance over runs of the excess risk of replace by ridge, fresh isotropic Gaussian X, any T and d.

    Exact: with P = QG and R = QGQ, w_n = P w_{n-1} + N(0, s^2 R), so E|w|^4, E|w|^2 w.w*, E(w.w*)^2, E|w|^2 and E w.w* map linearly
    to themselves; E A_ij B_kl of invariant A, B follows from E tr A tr B and E tr AB, of which the first is a Pfaffian's second
    derivative (refeed.theory.wishart).
    """
    return at(_moments(T, d, ridge, n, signal, s)[1], n)


@law("regression.ridge_replace_quantile", kind="asymptotic")
def ridge_replace_quantile(
    *, T: Schedule, d: int, ridge: float, q: float, n: Generations = None, signal: float = 1.0, s: Schedule = 1.0
) -> np.ndarray:
    """Quantile q over runs of the excess risk of replace by ridge: of the gamma law with the exact mean and variance.

    Asymptotic: the two moments are exact, the shape is not: see regression.accumulate_quantile for how far it is off.
    """
    mean, variance = _moments(T, d, ridge, n, signal, s)
    return at(gamma_quantile(mean, variance, q), n)


def _moments(T: Schedule, d: int, ridge: float, n: Generations, signal: float, s: Schedule) -> tuple[np.ndarray, np.ndarray]:
    last = horizon(n, T, s)
    rows, noise = by_generation(T, last), by_generation(s, last)
    _check(d, rows, ridge, s, signal)
    mean, square = np.empty(last), np.empty(last)
    fourth = mixed = overlap2 = signal**2  # E |w|^4, E |w|^2 w.w*, E (w.w*)^2
    length = overlap = float(signal)  # E |w|^2, E w.w*
    for i in range(last):
        one, pair = _traces(float(rows[i]), int(d), float(ridge))
        v2 = noise[i] ** 2
        u, v = invariants(d, pair["PP", "PP"], one["PPPP"])
        first = (u + 2 * v) * fourth + v2 * length * (2 * pair["PP", "R"] + 4 * one["PPR"]) / d
        first += v2**2 * (pair["R", "R"] + 2 * one["RR"])
        u, v = invariants(d, pair["PP", "P"], one["PPP"])
        second = (u + 2 * v) * mixed + v2 * overlap * (pair["P", "R"] + 2 * one["PR"]) / d
        u, v = invariants(d, pair["P", "P"], one["PP"])
        third = (u + v) * overlap2 + v * signal * length + v2 * signal * one["R"] / d
        fourth, mixed, overlap2 = first, second, third
        length, overlap = one["PP"] * length / d + v2 * one["R"], one["P"] * overlap / d
        mean[i] = length - 2 * overlap + signal
        square[i] = fourth + 4 * overlap2 + signal**2 - 4 * mixed + 2 * signal * length - 4 * signal * overlap
    return mean, square - mean**2


@lru_cache(maxsize=512)
def _traces(T: float, d: int, ridge: float) -> tuple[dict[str, float], dict[tuple[str, str], float]]:
    """E tr of products of P and R, and E (tr A)(tr B) of pairs."""

    def powers(name: str) -> Statistic:
        p, r = name.count("P"), name.count("R")
        return lambda x: x ** (p + r) / (x + ridge) ** (p + 2 * r)

    names = ("P", "PP", "R", "PPP", "PPPP", "PPR", "RR", "PR")
    one = dict(zip(names, wishart_means(T, d, [powers(name) for name in names]), strict=True))
    table = wishart_products(T, d, [powers(name) for name in names[:3]])
    pair = {(a, b): float(table[i, j]) for i, a in enumerate(names[:3]) for j, b in enumerate(names[:3])}
    return one, pair

"""Least squares on the same n_real real rows every generation, beside n_synthetic rows of the latest model.

e_r is the error of the real rows alone. f_n = e_n - e_r obeys f_n = G_n^-1 (G_s f_{n-1} + X_s'E_s) and is uncorrelated with e_r, so
err_n = s^2 d/(n_real-d-1) + E|f_n|^2 exactly: here synthetic rows never help. Generation 1 is fitted on the real rows alone.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq

from refeed.theory.registry import law, require
from refeed.theory.schedules import Generations, Schedule, at, by_generation, horizon

NODES = 400  # of the quadrature on the Marchenko-Pastur law; converged to 1e-12 at d/n_real = .9


def _check(d: int, n_real: float, n_synthetic: float, s: Schedule, least: float) -> None:
    require(d >= 1, f"d must be at least 1, not {d}")
    require(n_real >= least, f"n_real >= {least:g} is needed, but n_real = {n_real:g} and d = {d}")
    require(n_synthetic > 0, f"n_synthetic must be positive, not {n_synthetic:g}")
    require(bool((np.asarray(s, dtype=float) >= 0).all()), f"s is a standard deviation and must not be negative, not {s}")


@law("regression.fixed_real", kind="classical limit")
def fixed_real(*, d: int, n_real: float, n_synthetic: float, n: Generations, s: Schedule = 1.0) -> np.ndarray:
    """Fixed real rows plus the latest synthetic ones: err_n = s^2 d/n_r + f_n, f_n = alpha^2 (f_{n-1} + s^2 d/n_s), alpha = n_s/M.

    Classical limit (rows many times d). At most 1.5 times the error of the real rows alone, whatever n_synthetic.
    """
    _check(d, n_real, n_synthetic, s, 1)
    last, alpha, f = horizon(n, s), n_synthetic / (n_real + n_synthetic), 0.0
    noise = by_generation(s, last)
    curve = np.full(last, noise[0] ** 2 * d / n_real)
    for i in range(1, last):
        f = alpha**2 * (f + noise[i] ** 2 * d / n_synthetic)
        curve[i] += f
    return at(curve, n)


@law("regression.fixed_real_limit", kind="classical limit")
def fixed_real_limit(*, d: int, n_real: float, n_synthetic: float, s: float = 1.0) -> float:
    """Where fixed real rows plus the latest synthetic ones end: (s^2 d/n_real) (1 + n_s/(n_r + 2 n_s)), at most 1.5 times real
    alone.

    Classical limit: the fixed point of f = alpha^2 (f + s^2 d/n_s), alpha = n_s/(n_r + n_s).
    """
    _check(d, n_real, n_synthetic, s, 1)
    return s**2 * d / n_real * (1 + n_synthetic / (n_real + 2 * n_synthetic))


@law("regression.fixed_real_asymptotic", kind="asymptotic")
def fixed_real_asymptotic(*, d: int, n_real: float, n_synthetic: float, n: Generations, s: Schedule = 1.0) -> np.ndarray:
    """Fixed real rows plus the latest synthetic ones, where d is not small against the rows: a recursion on the spectrum of
    X_r'X_r.

    Asymptotic, error O(1/d). Given G_r, the covariance D of f_n shares its eigenvectors, and D <- E[Q G_s D G_s Q] + s^2 E[Q G_s
    Q], Q = (G_r + G_s)^-1, by deterministic equivalents: E Q = (G_r + kappa)^-1, kappa = n_s/(1 + tr E Q); the spectrum is
    Marchenko-Pastur's. Generation 1 is exact.
    """
    _check(d, n_real, n_synthetic, s, d + 2)
    last = horizon(n, s)
    level = by_generation(s, last)
    a, weight = _marchenko_pastur(d, n_real)
    log_kappa = brentq(lambda y: np.exp(y) * (1 + d * weight @ (1 / (a + np.exp(y)))) - n_synthetic, -60, 60, xtol=1e-14)
    kappa = np.exp(log_kappa)
    q = 1 / (a + kappa)
    scale = kappa**2 / n_synthetic
    feedback = 1 - scale * d * weight @ q**2

    def sandwich(b: np.ndarray) -> np.ndarray:
        """E[Q b Q] for b with the eigenvectors of G_r."""
        return q**2 * (b + scale * d * (weight @ (q**2 * b)) / feedback)

    noise = q - sandwich(a)  # E[Q G_s Q]
    D = np.zeros_like(a)
    curve = np.full(last, level[0] ** 2 * d / (n_real - d - 1))
    for i in range(1, last):
        D = D * (1 - 2 * q * a) + sandwich(a**2 * D) + level[i] ** 2 * noise
        curve[i] += d * weight @ D
    return at(curve, n)


def _marchenko_pastur(d: int, N: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights (sum 1) for the limiting spectrum of G ~ W_d(N, I), d < N: Gauss-Chebyshev of the second kind."""
    ratio = d / N
    angle = np.arange(1, NODES + 1) * np.pi / (NODES + 1)
    x = 1 + ratio + 2 * np.sqrt(ratio) * np.cos(angle)
    weight = np.sin(angle) ** 2 / x
    return N * x, weight / weight.sum()

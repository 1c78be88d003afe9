"""Least squares with fresh rows, in O(1) a generation whatever d and T: only the length of the error matters.

Rows are isotropic Gaussian and independent of the past, so the law of the next error depends on the last one through its length r.
"""

from __future__ import annotations

import numpy as np

from refeed.theory.registry import require
from refeed.theory.schedules import Generations, Schedule, by_generation, horizon

Randomness = int | np.random.Generator


def chi2(rng: np.random.Generator, freedom: float, runs: int) -> np.ndarray:
    """Chi-square variates; zero for no degrees of freedom."""
    return 2.0 * rng.standard_gamma(freedom / 2, runs) if freedom > 0 else np.zeros(runs)


def cosine(rng: np.random.Generator, d: int, runs: int) -> np.ndarray:
    """The first coordinate of a uniform direction in d dimensions."""
    if d == 1:
        return rng.integers(0, 2, runs) * 2.0 - 1.0
    return 2.0 * rng.beta((d - 1) / 2, (d - 1) / 2, runs) - 1.0


def replace(*, d: int, T: Schedule, n: Generations = None, s: Schedule = 1.0, runs: int, seed: Randomness = 0) -> np.ndarray:
    """Excess risk of least squares under replace with fresh X, any T_i >= d.

    Exact: w_n - w_{n-1} = G^-1 X'E is spherical with squared length q = s^2 chi2_d / chi2_{T-d+1}, independent of the past; so
    r^2 <- r^2 + q + 2 r sqrt(q) cos, cos the coordinate of a uniform direction.
    """
    rng, last = np.random.default_rng(seed), horizon(n, T, s)
    rows, noise = by_generation(T, last), by_generation(s, last)
    require(d >= 1 and rows.min() >= d, f"T >= d >= 1 is needed, but T = {rows.min():g} and d = {d}")
    errors, square = np.empty((runs, last)), np.zeros(runs)
    for g in range(last):
        step = noise[g] ** 2 * chi2(rng, d, runs) / chi2(rng, rows[g] - d + 1, runs)
        square = np.maximum(square + step + 2 * np.sqrt(square * step) * cosine(rng, d, runs), 0.0)
        errors[:, g] = square
    return errors


def fresh(
    *,
    d: int,
    n_real: int,
    n_synthetic: int,
    n: int,
    T1: int | None = None,
    s: float = 1.0,
    s_synthetic: float | None = None,
    runs: int,
    seed: Randomness = 0,
) -> np.ndarray:
    """Excess risk of pooled least squares on n_real fresh real rows and n_synthetic rows of the latest model.

    Exact. With z = X e/r the new error is the fit of y = r z 1_synthetic + E on X = [z, X_2], X_2 independent of (z, y). The Gram
    matrix K of (z, y) needs chi-squares only; the part of it that X_2 does not explain is R'BR with K = R'R and B matrix beta
    ((M-d+1)/2, (d-1)/2) of size 2; and the coefficients of X_2 have squared length (explained part)/chi2_{M-d+2}.
    """
    M, rng = n_real + n_synthetic, np.random.default_rng(seed)
    first = M if T1 is None else T1
    require(d >= 1 and min(M, first) >= d + 1, f"n_real + n_synthetic and T1 > d are needed, not {M}, {first} and d = {d}")
    synthetic = s if s_synthetic is None else s_synthetic
    errors = np.empty((runs, n))
    errors[:, 0] = square = replace(d=d, T=first, n=1, s=s, runs=runs, seed=rng)[:, 0]
    for g in range(1, n):
        r = np.sqrt(square)
        a, c = chi2(rng, n_real, runs), chi2(rng, n_synthetic, runs)  # z'z on real and on synthetic rows
        along, across = rng.standard_normal(runs) * (n_real > 0), rng.standard_normal(runs) * (n_synthetic > 0)
        e_real = s**2 * (along**2 + chi2(rng, n_real - 1, runs))
        e_synthetic = synthetic**2 * (across**2 + chi2(rng, n_synthetic - 1, runs))
        zz = a + c
        zy = r * c + s * np.sqrt(a) * along + synthetic * np.sqrt(c) * across
        yy = r**2 * c + 2 * r * synthetic * np.sqrt(c) * across + e_real + e_synthetic
        pzz, pzy, pyy = _unexplained(rng, zz, zy, yy, M - d + 1, d - 1, runs)
        b = pzy / pzz
        explained = (yy - 2 * b * zy + b**2 * zz) - (pyy - b * pzy)
        square = b**2 + (np.maximum(explained, 0.0) / chi2(rng, M - d + 2, runs) if d > 1 else 0.0)
        errors[:, g] = square
    return errors


def _unexplained(
    rng: np.random.Generator, zz: np.ndarray, zy: np.ndarray, yy: np.ndarray, p: int, q: int, runs: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """R'BR for K = R'R = [[zz, zy], [zy, yy]] and B matrix beta of p and q degrees of freedom: its three entries."""
    if q == 0:
        return zz, zy, yy
    s11, s21, s22 = _wishart(rng, p, runs)
    t11, t21, t22 = _wishart(rng, q, runs)
    # S = L L' with S = S_p + S_q, and B = L^-1 S_p L^-T
    l11 = np.sqrt(s11 + t11)
    l21 = (s21 + t21) / l11
    l22 = np.sqrt(s22 + t22 - l21**2)
    b11 = s11 / l11**2
    x21 = (s21 - l21 * s11 / l11) / l22  # second row of L^-1 S_p
    b21 = x21 / l11
    x22 = (s22 - l21 * s21 / l11) / l22
    b22 = (x22 - x21 * l21 / l11) / l22
    r11 = np.sqrt(zz)
    r12 = zy / r11
    r22 = np.sqrt(np.maximum(yy - r12**2, 0.0))
    pzz = b11 * zz
    pzy = r11 * (b11 * r12 + b21 * r22)
    pyy = b11 * r12**2 + 2 * b21 * r12 * r22 + b22 * r22**2
    return pzz, pzy, pyy


def _wishart(rng: np.random.Generator, freedom: int, runs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The entries of W_2(freedom, I), by Bartlett's decomposition (of rank one for one degree of freedom)."""
    a = np.sqrt(chi2(rng, freedom, runs))
    b = rng.standard_normal(runs)
    return a**2, a * b, b**2 + chi2(rng, freedom - 1, runs)

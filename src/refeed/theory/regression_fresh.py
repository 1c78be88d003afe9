"""Least squares on a mixture of real and synthetic rows: fresh real rows every generation, fixed real rows, or random history.

M = n_real + n_synthetic rows are fitted at once; synthetic labels come from the latest model. Rows are isotropic Gaussian.
"""

from __future__ import annotations

import numpy as np

from refeed.theory.registry import law, require
from refeed.theory.schedules import Generations, Schedule, at, by_generation, horizon


def _rows(d: int, M: float, what: str = "M") -> None:
    require(d >= 1, f"d must be at least 1, not {d}")
    require(d + 2 <= M, f"{what} >= d + 2 is needed for the mean to exist, but {what} = {M:g} and d = {d}")


def _noise(s: Schedule | None, last: int) -> np.ndarray:
    noise = by_generation(1.0 if s is None else s, last)
    require(bool((noise >= 0).all()), f"s is a standard deviation and must not be negative, not {s}")
    return noise


def _mixture(n_real: float, n_synthetic: float, least_real: float = 0) -> float:
    require(
        n_real >= least_real and n_synthetic >= 0,
        f"n_real >= {least_real:g} and n_synthetic >= 0 are needed, not n_real = {n_real:g} and n_synthetic = {n_synthetic:g}",
    )
    return n_real + n_synthetic


@law("regression.row_coefficient_same", kind="exact")
def row_coefficient_same(*, M: float, d: int) -> float:
    """a of E[x x'G^-2 x x'] = a I, x one of M Gaussian rows and G their Gram matrix: (M-2)(d+2) / (M (M+2) (M-d-1)).

    Exact. XX' and its pseudo-inverse share eigenvectors that are uniform on O(M): E H_ii H+_ii = (2 d + E tr G tr G^-1)/(M(M+2)),
    and E tr G tr G^-1 = (M d - 2) d/(M-d-1) by scaling. docs/theory/regression.md.
    """
    _rows(d, M)
    return (M - 2) * (d + 2) / (M * (M + 2) * (M - d - 1))


@law("regression.row_coefficient_other", kind="exact")
def row_coefficient_other(*, M: float, d: int) -> float:
    """b of E[x x'G^-2 z z'] = b I, for two different rows x, z of M: (1 - M a) / (M (M - 1)).

    Exact: the sum over all pairs of rows is G G^-2 G = I.
    """
    return (1 - M * row_coefficient_same(M=M, d=d)) / (M * (M - 1))


@law("regression.fresh_factor", kind="exact")
def fresh_factor(*, d: int, n_real: float, n_synthetic: float) -> float:
    """q of err_n = q err_{n-1} + nu when n_real fresh real and n_synthetic rows of the latest model are pooled: n_s a + n_s
    (n_s-1) b.

    Exact. Above 1 (about d/M > (1+phi)/(1+2 phi), phi = n_s/M) the error grows exponentially although real data keep coming.
    """
    M = _mixture(n_real, n_synthetic)
    same, other = row_coefficient_same(M=M, d=d), row_coefficient_other(M=M, d=d)
    return n_synthetic * same + n_synthetic * (n_synthetic - 1) * other


@law("regression.fresh", kind="exact")
def fresh(
    *,
    d: int,
    n_real: float,
    n_synthetic: float,
    n: Generations,
    T1: float | None = None,
    s: Schedule = 1.0,
    s_synthetic: Schedule | None = None,
) -> np.ndarray:
    """Each model learns from n_real fresh real rows and n_synthetic rows of the one before, pooled: err_n = q err_{n-1} + nu.

    nu = (s^2 n_real + s_synthetic^2 n_synthetic)/M d/(M-d-1); generation 1 is fitted on T1 real rows (M where it is not given).
    Exact for isotropic Gaussian x: e_n = G^-1 (G_s e_{n-1} + X'E), and E[G_s G^-2 G_s] = q I by the row coefficients.
    """
    last = horizon(n, s)
    M = _mixture(n_real, n_synthetic)
    first = M if T1 is None else T1
    _rows(d, M, "n_real + n_synthetic")
    _rows(d, first, "T1")
    real = _noise(s, last)
    synthetic = real if s_synthetic is None else _noise(s_synthetic, last)
    q = fresh_factor(d=d, n_real=n_real, n_synthetic=n_synthetic)
    added = (real**2 * n_real + synthetic**2 * n_synthetic) / M * d / (M - d - 1)
    curve = np.empty(last)
    curve[0] = real[0] ** 2 * d / (first - d - 1)
    with np.errstate(over="ignore"):  # where q > 1 it passes every number there is
        for i in range(1, last):
            curve[i] = q * curve[i - 1] + added[i]
    return at(curve, n)


@law("regression.fresh_limit", kind="exact")
def fresh_limit(*, d: int, n_real: float, n_synthetic: float, s: float = 1.0, s_synthetic: float | None = None) -> float:
    """Where the pooled fresh-data loop ends: nu / (1 - q), where q < 1.

    Exact; see regression.fresh. A TheoryError where q >= 1: there the error grows without bound.
    """
    M = _mixture(n_real, n_synthetic)
    _rows(d, M, "n_real + n_synthetic")
    q = fresh_factor(d=d, n_real=n_real, n_synthetic=n_synthetic)
    require(q < 1, f"q < 1 is needed for a limit, but q = {q:.6g}: the error grows without bound")
    real, synthetic = _noise(s, 1)[0], _noise(s if s_synthetic is None else s_synthetic, 1)[0]
    return float((real**2 * n_real + synthetic**2 * n_synthetic) / M * d / (M - d - 1) / (1 - q))


@law("regression.fresh_weighted_asymptotic", kind="asymptotic")
def fresh_weighted_asymptotic(
    *,
    d: int,
    n_real: float,
    n_synthetic: float,
    w: float,
    n: Generations = 6,
    s: Schedule = 1.0,
    T1: float | None = None,
) -> np.ndarray:
    """The fresh-data loop by weighted least squares, total weight w on real and 1 - w on synthetic rows; rows and d large together.

    Asymptotic, error O(1/d) (generation 1, on T1 rows or M, is exact). Resolvent calculus: delta = tr Q solves delta
    kappa(delta) = d, kappa = n_r alpha/(1 + alpha delta) + n_s beta/(1 + beta delta), alpha = w/n_r, beta = (1-w)/n_s; q and nu
    are its derivatives.
    """
    last = horizon(n, s)
    M = _mixture(n_real, n_synthetic, 1)
    first = M if T1 is None else T1
    _rows(d, M, "n_real + n_synthetic")
    _rows(d, first, "T1")
    require(0 < w <= 1, f"w, the weight on real rows, must be in (0, 1], not {w}")
    require(w == 1 or n_synthetic > 0, "w = 1 is needed where n_synthetic = 0")
    require(w < 1 or n_real > d, f"with w = 1 only real rows count: n_real > d is needed, but n_real = {n_real:g} and d = {d}")
    noise = _noise(s, last)
    alpha, beta = w / n_real, (1 - w) / n_synthetic if n_synthetic else 0.0
    delta = _delta(d, n_real, n_synthetic, alpha, beta)
    real, synthetic = 1 + alpha * delta, 1 + beta * delta
    kappa = n_real * alpha / real + n_synthetic * beta / synthetic
    bend = n_real * (alpha / real) ** 2 + n_synthetic * (beta / synthetic) ** 2  # -d kappa / d delta
    slope = -delta / (kappa - delta * bend)  # d delta / d z = -tr Q^2
    cross = alpha * beta * n_real * n_synthetic * slope * (1 - alpha * beta * delta**2) / (real * synthetic) ** 2
    q = (cross + n_synthetic * beta * delta / synthetic) / d
    curve = np.empty(last)
    curve[0] = noise[0] ** 2 * d / (first - d - 1)
    for i in range(1, last):
        curve[i] = q * curve[i - 1] - noise[i] ** 2 * slope * bend
    return at(curve, n)


def _delta(d: int, n_real: float, n_synthetic: float, alpha: float, beta: float) -> float:
    """The positive root of delta kappa(delta) = d, which increases from 0 to the number of rows with weight."""
    from scipy.optimize import brentq

    def excess(log_delta: float) -> float:
        delta = np.exp(log_delta)
        weighted = n_real * alpha * delta / (1 + alpha * delta) + n_synthetic * beta * delta / (1 + beta * delta)
        return float(weighted - d)

    return float(np.exp(brentq(excess, -60, 60 + np.log(n_real + n_synthetic), xtol=1e-15, rtol=1e-15)))


@law("regression.fresh_best_weight", kind="classical limit")
def fresh_best_weight(*, ratio: float) -> float:
    """The best weight on fresh real rows, ratio = n_real/n_synthetic: w* = (sqrt(r^2 + 4 r) - r)/2; .618, the golden ratio, at r
    = 1.

    Classical limit: minimises [w^2 + r (1-w)^2] / (w (2-w)), whose minimum equals w* itself: err = w* s^2 d / n_real.
    Source: He, Xu, Cheng, arXiv:2502.18049; that the value is w* is derived in docs/theory/regression.md.
    """
    require(ratio > 0, f"ratio = n_real / n_synthetic must be positive, not {ratio}")
    return float(2 / (np.sqrt(1 + 4 / ratio) + 1))


@law("regression.fresh_cost_rule", kind="classical limit")
def fresh_cost_rule(*, cost_ratio: float) -> np.ndarray:
    """Best mix for a budget B a generation, a real row costing c synthetic ones: [w*, n_synthetic/n_real, B err/(s^2 d)].

    Classical limit, best weights: w* = 1/sqrt(c), n_s/n_r = c - sqrt(c), err = (2 sqrt(c) - 1) s^2 d / B, against c s^2 d / B with
    real rows alone. For c <= 1 synthetic rows are never worth their price: [1, 0, c]. Minimises (c + 1/r) w*(r).
    """
    require(cost_ratio > 0, f"cost_ratio must be positive, not {cost_ratio}")
    root = np.sqrt(cost_ratio)
    if cost_ratio <= 1:
        return np.array([1.0, 0.0, float(cost_ratio)])
    return np.array([1 / root, cost_ratio - root, 2 * root - 1])


@law("regression.history_factor", kind="exact")
def history_factor(*, M: float, d: int) -> float:
    """kappa = (M-2)(d+2) / ((M+2)(M-d-1)): the history mixture is bounded where it is below 1, that is d < M/2 or about.

    Exact: the weight M a of the mean earlier error in that of a model. At 1 the error grows like log n, above like n^(kappa-1).
    """
    return M * row_coefficient_same(M=M, d=d)


@law("regression.history_mixture", kind="exact")
def history_mixture(*, d: int, M: float, n: Generations, s: Schedule = 1.0) -> np.ndarray:
    """M fresh rows a generation, each labelled by the truth or an earlier model at random: accumulate-subsample without a store.

    Exact, O(n^2). C_gm = E <e_g, e_m> = mean_j C_jm over the g labellers j, and
    C_gg = M a mean_j C_jj + M (M-1) b mean_jk C_jk + s^2 d/(M-d-1), with the row coefficients a and b.
    """
    last = horizon(n, s)
    _rows(d, M)
    noise = _noise(s, last)
    own, pairs = M * row_coefficient_same(M=M, d=d), M * (M - 1) * row_coefficient_other(M=M, d=d)
    C = np.zeros((last + 1, last + 1))  # labeller 0 is the truth
    diagonal = everything = 0.0
    for g in range(1, last + 1):
        C[g, :g] = C[:g, g] = C[:g, :g].mean(axis=0)
        C[g, g] = own * diagonal / g + pairs * everything / g**2 + noise[g - 1] ** 2 * d / (M - d - 1)
        diagonal += C[g, g]
        everything += C[g, g] + 2 * C[g, :g].sum()
    return at(np.diagonal(C)[1:].copy(), n)

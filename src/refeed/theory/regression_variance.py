"""How far single runs of a least-squares loop scatter about their mean: variances, and quantiles by a gamma law of equal moments.

Rows are Gaussian with any covariance, the same in training and test; isotropic without loss of generality.
docs/theory/regression.md derives every formula.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from refeed.theory.registry import law, require
from refeed.theory.regression import accumulate, replace
from refeed.theory.regression_fresh import fresh
from refeed.theory.schedules import Generations, Schedule, at, by_generation, horizon


def _check(d: int, smallest: float, s: Schedule, what: str) -> None:
    require(d >= 1, f"d must be at least 1, not {d}")
    require(smallest >= d + 4, f"{what} > d + 3 is needed for the variance to exist, but {what} = {smallest:g} and d = {d}")
    require(bool((np.asarray(s, dtype=float) >= 0).all()), f"s is a standard deviation and must not be negative, not {s}")


@law("regression.replace_variance", kind="exact")
def replace_variance(*, d: int, T: Schedule, n: Generations = None, s: Schedule = 1.0) -> np.ndarray:
    """Variance over runs of the excess risk under replace with fresh X; with m_i its i-th increment, it grows like (2/d)(sum
    m_i)^2.

    Var err_n = sum_i s_i^4 Var(chi2_d / chi2_{T_i-d+1}) + (2/d) [(sum m_i)^2 - sum m_i^2], m_i = s_i^2 d / (T_i - d - 1).

    Exact for Gaussian x and T_i > d + 3. Proof: the increments of w are independent and spherical, of squared length
    s_i^2 chi2_d / chi2_{T_i-d+1}; so err_n is the squared length of a sum of independent spherical vectors, whose cross terms
    have E (u.v)^2 = E|u|^2 E|v|^2 / d.
    """
    last = horizon(n, T, s)
    rows, noise = by_generation(T, last), by_generation(s, last)
    _check(d, rows.min(), s, "T")
    mean = noise**2 * d / (rows - d - 1)
    second = noise**4 * d * (d + 2) / ((rows - d - 1) * (rows - d - 3))
    cross = np.cumsum(mean) ** 2 - np.cumsum(mean**2)
    return at(np.cumsum(second - mean**2) + 2 / d * cross, n)


@law("regression.accumulate_variance", kind="exact")
def accumulate_variance(*, d: int, T: Schedule, n: Generations = None, s: Schedule = 1.0) -> np.ndarray:
    """Variance over runs of the excess risk under accumulate with fresh X, from moments of the matrix-variate beta law.

    Exact for Gaussian x and T_1 > d + 3; later batches may be of any size. O(n).

    Proof idea: given all x, the error vector is N(0, S) with S = sum S_i, hence E err^2 = E (tr S)^2 + 2 E tr S^2. With G the Gram
    matrix of the first j batches and B the share of batch j in it, S_j = s_j^2 G^-1/2 B G^-1/2, B is matrix beta and independent
    of G, and E[S_i | G_{j-1}] is a multiple of G_{j-1}^-1 = G^-1/2 (I - B)^-1 G^-1/2 for i < j. What remains are second moments of
    orthogonally invariant matrices. docs/theory/regression.md.
    """
    last = horizon(n, T, s)
    rows, noise = by_generation(T, last), by_generation(s, last)
    _check(d, rows[0], s, "T_1")
    require(bool((rows >= 0).all()), "T must not be negative")
    total = np.cumsum(rows)
    before = total - rows
    share = noise**2 * rows / total / (total - d - 1)  # E S_i = share_i I
    square, trace = _inverse_wishart_moments(d, total)

    # the diagonal terms, batch i with itself: E B_ij B_kl = u dij dkl + v (dik djl + dil djk)
    half, whole = rows / 2, total / 2
    symmetric = d * (d + 2) * half * (half + 1) / (whole * (whole + 1))  # E (tr B)^2 + 2 E tr B^2
    antisymmetric = d * (d - 1) * half * (half - 0.5) / (whole * (whole - 0.5))  # E (tr B)^2 - E tr B^2
    u, v = invariants(d, (symmetric + 2 * antisymmetric) / 3, (symmetric - antisymmetric) / 3)
    terms = noise**4 * ((u * trace + 2 * v * square) + 2 * ((u + v) * square + v * trace))

    # the cross terms, every earlier batch with batch j: the same with A^-1 and A, A = I - B
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = (total - d - 1) / (before - d - 1)  # E A^-1 = inverse I
        both = 2 * d / (d + 1) + (d**2 - 2 * d / (d + 1)) * before / total * inverse  # E tr A tr A^-1
        u, v = invariants(d, both, np.full(last, float(d)))
        apart = inverse * trace - u * trace - 2 * v * square  # E tr(H A^-1) tr(H B)
        together = inverse * square - (u + v) * square - v * trace  # E tr(H A^-1 H B)
        earlier = (np.cumsum(share) - share) * (before - d - 1)
        cross = 2 * earlier * noise**2 * (apart + 2 * together)
    terms[1:] += cross[1:]
    return at(np.cumsum(terms) - (d * np.cumsum(share)) ** 2, n)


def _inverse_wishart_moments(d: int, N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """E tr H^2 and E (tr H)^2 of H = G^-1, G ~ W_d(N, I)."""
    denominator = (N - d) * (N - d - 1) * (N - d - 3)
    return d * (N - 1) / denominator, d * (d * (N - d - 2) + 2) / denominator


def invariants(d: int, trace_trace: Any, trace_product: Any) -> tuple[Any, Any]:
    """u, v of E A_ij B_kl = u dij dkl + v (dik djl + dil djk), from E tr A tr B and E tr AB, jointly invariant and symmetric."""
    if d == 1:
        return trace_product, 0.0 * trace_product  # one number; u + 2 v alone has a meaning
    v = (trace_product - trace_trace / d) / ((d - 1) * (d + 2))
    return (trace_trace - 2 * d * v) / d**2, v


@law("regression.fresh_variance", kind="exact")
def fresh_variance(
    *, d: int, n_real: float, n_synthetic: float, n: Generations, T1: float | None = None, s: Schedule = 1.0
) -> np.ndarray:
    """Variance over runs of the excess risk of regression.fresh: E err_n^2 is linear in E err_{n-1}^2 and E err_{n-1}.

    Exact for isotropic Gaussian x, equally noisy real and synthetic labels, n_real + n_synthetic and T1 > d + 3. It can grow
    without bound where the mean settles: the factor of err^2 passes 1 at a smaller d than q does.

    Proof idea: the error is the fit of y = r z_s + E on M rows of which one column is z, and only the angles between (z, y) and the
    space of the other columns matter; they are beta and chi-square variates. Derived in docs/theory/regression.md.
    """
    last = horizon(n, s)
    M, noise = n_real + n_synthetic, by_generation(s, last)
    first = M if T1 is None else T1
    require(n_real >= 0 and n_synthetic >= 0, f"n_real, n_synthetic >= 0 are needed, not {n_real:g} and {n_synthetic:g}")
    _check(d, M, s, "n_real + n_synthetic")
    _check(d, first, s, "T1")
    mean = fresh(d=d, n_real=n_real, n_synthetic=n_synthetic, n=last, T1=T1, s=s)
    square = np.empty(last)
    square[0] = noise[0] ** 4 * d * (d + 2) / ((first - d - 1) * (first - d - 3))
    constant, linear, quadratic = _fresh_second_moment(d, n_real, n_synthetic)
    with np.errstate(over="ignore", invalid="ignore"):
        for i in range(1, last):
            square[i] = quadratic * square[i - 1] + noise[i] ** 2 * linear * mean[i - 1] + noise[i] ** 4 * constant
        return at(square - mean**2, n)


def _fresh_second_moment(d: int, n_real: float, n_synthetic: float) -> np.ndarray:
    """E err^2 after one generation from an error of squared length r^2, s = 1: the coefficients of 1, r^2 and r^4."""
    M = n_real + n_synthetic
    # f = |z_s|^2 / |z|^2 is Beta(n_synthetic/2, n_real/2), Z = |z|^2 chi-square of M
    f1 = n_synthetic / M
    f2 = f1 * (n_synthetic + 2) / (M + 2)
    f3 = f2 * (n_synthetic + 4) / (M + 4)
    f4 = f3 * (n_synthetic + 6) / (M + 6)
    Z = {1: M, 2: M * (M + 2), 0: 1.0, -1: 1 / (M - 2), -2: 1 / ((M - 2) * (M - 4))}
    # y = beta z + k eta, |eta| = 1: means over the noise of beta^4, of beta^2 k^2 Z^j and of k^4 Z^j
    beta4 = np.array([3 * Z[-2], 6 * f2 * Z[-1], f4])

    def both(j: int) -> np.ndarray:
        return np.array([(M - 1) * Z[j - 1], ((M - 1) * f2 + f1 - f2) * Z[j], (f3 - f4) * Z[j + 1]])

    def k4(j: int) -> np.ndarray:
        return np.array([(M**2 - 1) * Z[j], 2 * (M + 1) * (f1 - f2) * Z[j + 1], (f2 - 2 * f3 + f4) * Z[j + 2]])

    # p: cos^2 of the angle of z to what the other columns leave; c: the coordinate of eta along z's part in them; t: the rest
    p1, p2 = (M - 2) / (M - d - 1), (M - 2) * (M - 4) / ((M - d - 1) * (M - d - 3))  # E 1/p, E 1/p^2
    c2, c4 = 1 / (M - 1), 3 / ((M - 1) * (M + 1))
    mixed, rest = c2 - c4, 1 - 2 * c2 + c4  # E c^2 (1-c^2), E (1-c^2)^2
    t1, t2 = (d - 2) / (M - 2), (d - 2) * d / ((M - 2) * M)
    chi1, chi2 = 1 / (M - d), 1 / ((M - d) * (M - d - 2))
    out = c2 * p1 + (1 - c2) * t1  # of k^2 that the other columns take, over |eta|^2
    return np.asarray(
        beta4
        + 6 * both(-1) * (p1 - 1) * c2
        + 2 * both(0) * chi1 * out
        + k4(-2) * (p2 - 2 * p1 + 1) * c4
        + 2 * k4(-1) * chi1 * (c4 * (p2 - p1) + mixed * t1 * (p1 - 1))
        + k4(0) * chi2 * (c4 * p2 + 2 * mixed * p1 * t1 + rest * t2)
    )


def gamma_quantile(mean: np.ndarray, variance: np.ndarray, q: float) -> np.ndarray:
    require(0 < q < 1, f"q is a probability between 0 and 1, not {q}")
    spread = np.where(mean > 0, variance / np.where(mean > 0, mean, 1.0), 1.0)
    return np.asarray(stats.gamma.ppf(q, np.where(mean > 0, mean / spread, 1.0), scale=spread)) * (mean > 0)


@law("regression.replace_quantile", kind="asymptotic")
def replace_quantile(*, d: int, T: Schedule, q: float, n: Generations = None, s: Schedule = 1.0) -> np.ndarray:
    """Quantile q over runs of the excess risk under replace: of the gamma law with the exact mean and variance.

    Asymptotic: the two moments are exact, the shape is not: see regression.accumulate_quantile for how far it is off.
    """
    return gamma_quantile(replace(d=d, T=T, n=n, s=s), replace_variance(d=d, T=T, n=n, s=s), q)


@law("regression.accumulate_quantile", kind="asymptotic")
def accumulate_quantile(*, d: int, T: Schedule, q: float, n: Generations = None, s: Schedule = 1.0) -> np.ndarray:
    """Quantile q over runs of the excess risk under accumulate: of the gamma law with the exact mean and variance.

    Asymptotic. Distance of the two distribution functions, measured: .01 to .02 from T = 6 d + 24 on, .03 at T = 3 d or d = 1,
    T = 30, but .05 at d = 3, T = 16 and .11 at d = 1, T = 9, where the variance barely exists.
    """
    return gamma_quantile(accumulate(d=d, T=T, n=n, s=s), accumulate_variance(d=d, T=T, n=n, s=s), q)


@law("regression.fresh_quantile", kind="asymptotic")
def fresh_quantile(
    *, d: int, n_real: float, n_synthetic: float, q: float, n: Generations, T1: float | None = None, s: Schedule = 1.0
) -> np.ndarray:
    """Quantile q over runs of the excess risk of the pooled fresh-data loop: of the gamma law with the exact mean and variance.

    Asymptotic: the two moments are exact, the shape is not: see regression.accumulate_quantile for how far it is off.
    """
    sizes = {"d": d, "n_real": n_real, "n_synthetic": n_synthetic, "n": n, "T1": T1, "s": s}
    return gamma_quantile(fresh(**sizes), fresh_variance(**sizes), q)

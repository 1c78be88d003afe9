"""Exact means of linear statistics of a real Wishart matrix: E sum_k f(x_k), x_k the non-zero eigenvalues of G = X'X.

The joint density of the eigenvalues is prod w(x_k) prod |x_j - x_k|, w(x) = x^((N-d-1)/2) e^(-x/2) for N rows >= d columns. By
de Bruijn's formula its normalisation is the Pfaffian of A_ij = int int sgn(y-x) p_i(x) p_j(y) w(x) w(y), bordered by int p_i w
for odd d; replacing w by w (1 + eps f) and differentiating gives E sum f = tr(A^-1 dA) / 2. With p_i the Laguerre polynomials
that are orthonormal for x w^2 the matrix is well-conditioned, and x = u^2 makes every integrand smooth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from scipy.special import gammaln

from refeed.theory.registry import require

ORDER = 20  # Gauss-Legendre nodes a panel
LARGEST = 1200  # of min(rows, columns): a few seconds and 300 MB

Statistic = Callable[[np.ndarray], np.ndarray]


def wishart_means(rows: float, columns: int, statistics: Sequence[Statistic]) -> list[float]:
    """E sum_k f(x_k) over the non-zero eigenvalues of X'X, X of shape (rows, columns) standard normal, for each f; exact to
    1e-9."""
    require(float(rows).is_integer() or rows >= columns, f"rows must be a whole number where rows < columns, not {rows}")
    N, d = max(rows, columns), int(min(rows, columns))
    require(1 <= d <= LARGEST, f"1 <= min(rows, d) <= {LARGEST} is needed for the exact value, not {d}")
    x, weight, basis, forward, inverse = _system(float(N), d)
    means = []
    for f in statistics:
        values = f(x)
        change = basis.T @ (weight[:, None] * values[:, None] * forward)
        change = change - change.T
        if d % 2:
            edge = basis.T @ (weight * values)
            change = np.block([[change, edge[:, None]], [-edge[None, :], np.zeros((1, 1))]])
        means.append(float(0.5 * np.sum(inverse * change.T)))
    return means


@lru_cache(maxsize=8)
def _system(N: float, d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Nodes x, weights in u, the functions p_i w dx/du there, their signed integrals, and A^-1."""
    u, weight, integrate = _panels(N, d)
    basis = _laguerre(u**2, N - d, d) * 2.0  # p_i(u^2) u^(N-d) e^(-u^2/2), and dx = 2 u du
    pieces = basis.reshape(-1, ORDER, d)
    within = np.einsum("ij,kjd->kid", integrate, pieces) * (weight.reshape(-1, ORDER).sum(1) / 2)[:, None, None]
    whole = np.einsum("kj,kjd->kd", weight.reshape(-1, ORDER), pieces)
    start = np.cumsum(whole, axis=0) - whole
    total = whole.sum(axis=0)
    forward = total - 2 * (start[:, None, :] + within).reshape(-1, d)  # int sgn(y - x) phi_j(y) dy at x
    A = basis.T @ (weight[:, None] * forward)
    A = (A - A.T) / 2
    if d % 2:
        A = np.block([[A, total[:, None]], [-total[None, :], np.zeros((1, 1))]])
    return u**2, weight, basis, forward, np.linalg.inv(A)


def _panels(N: float, d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gauss-Legendre panels in u = sqrt(x) over all that matters, and the matrix that integrates from a panel's left end."""
    low = max(0.0, np.sqrt(N) - np.sqrt(d) - 9.0)
    high = np.sqrt(N) + np.sqrt(d) + 9.0
    edges = np.linspace(low, high, int(24 + 0.35 * d) + 1)
    t, w = np.polynomial.legendre.leggauss(ORDER)
    u = (edges[:-1, None] + (t + 1) / 2 * np.diff(edges)[:, None]).ravel()
    weight = (w / 2 * np.diff(edges)[:, None]).ravel()
    vandermonde = np.polynomial.legendre.legvander(t, ORDER - 1)
    integrals = np.stack([np.polynomial.legendre.legval(t, _integrated(k)) for k in range(ORDER)], axis=1)
    return u, weight, integrals @ np.linalg.inv(vandermonde)


def _integrated(k: int) -> np.ndarray:
    unit = np.zeros(k + 1)
    unit[k] = 1.0
    return np.polynomial.legendre.legint(unit, lbnd=-1)


def _laguerre(x: np.ndarray, alpha: float, count: int) -> np.ndarray:
    """p_k(x) x^(alpha/2) e^(-x/2), k < count, p_k orthonormal for x^alpha e^-x; the scale of each node apart, so none
    underflows."""
    result = np.empty((len(x), count))
    scale = alpha / 2 * np.log(x) - x / 2 - gammaln(alpha + 1) / 2
    before, now = np.zeros_like(x), np.ones_like(x)
    for k in range(count):
        result[:, k] = now * np.exp(scale)
        step = (2 * k + 1 + alpha - x) * now - np.sqrt(k * (k + alpha)) * before
        before, now = now, step / np.sqrt((k + 1) * (k + 1 + alpha))
        large = np.abs(now) > 1e100
        if large.any():
            before[large] *= 1e-100
            now[large] *= 1e-100
            scale[large] += 100 * np.log(10)
    return result

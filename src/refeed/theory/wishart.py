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


def wishart_products(rows: float, columns: int, statistics: Sequence[Statistic]) -> np.ndarray:
    """E (sum_k f(x_k)) (sum_k g(x_k)) for each pair of statistics, a matrix; exact to 1e-9.

    The second derivative of the same Pfaffian, w times (1 + eps f)(1 + delta g): cov = tr(A^-1 A'' - A^-1 A_f A^-1 A_g) / 2.
    """
    N, d = max(rows, columns), int(min(rows, columns))
    means = np.array(wishart_means(rows, columns, statistics))
    x, weight, basis, _, inverse = _system(float(N), d)
    values = [f(x) for f in statistics]
    weighted = [_signed(float(N), d, v) for v in values]  # int sgn(y - x) f(y) p_j(y) w(y) dy
    plain = _signed(float(N), d, np.ones_like(x))

    def bordered(inner: np.ndarray, edge: np.ndarray) -> np.ndarray:
        inner = inner - inner.T
        if d % 2 == 0:
            return inner
        side = basis.T @ (weight * edge)
        return np.block([[inner, side[:, None]], [-side[None, :], np.zeros((1, 1))]])

    first = [inverse @ bordered(basis.T @ ((weight * f)[:, None] * plain), f) for f in values]
    products = np.outer(means, means)
    for i, f in enumerate(values):
        for j in range(i + 1):
            g = values[j]
            second = basis.T @ ((weight * f * g)[:, None] * plain) + basis.T @ ((weight * f)[:, None] * weighted[j])
            both = np.sum(inverse * bordered(second, f * g).T) - np.sum(first[i] * first[j].T)
            products[i, j] = products[j, i] = products[i, j] + 0.5 * both
    return products


@lru_cache(maxsize=8)
def _system(N: float, d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Nodes x, weights in u, the functions p_i w dx/du there, their signed integrals, and A^-1."""
    u, weight, integrate = _panels(N, d)
    basis = _laguerre(u**2, N - d, d) * 2.0  # p_i(u^2) u^(N-d) e^(-u^2/2), and dx = 2 u du
    forward = _sign_integral(basis, weight, integrate)
    total = basis.T @ weight
    A = basis.T @ (weight[:, None] * forward)
    A = (A - A.T) / 2
    if d % 2:
        A = np.block([[A, total[:, None]], [-total[None, :], np.zeros((1, 1))]])
    return u**2, weight, basis, forward, np.linalg.inv(A)


def _signed(N: float, d: int, values: np.ndarray) -> np.ndarray:
    _, weight, integrate = _panels(N, d)
    return _sign_integral(_system(N, d)[2] * values[:, None], weight, integrate)


def _sign_integral(functions: np.ndarray, weight: np.ndarray, integrate: np.ndarray) -> np.ndarray:
    """int sgn(y - x) phi_j(y) dy at the nodes x, by whole panels and the part of one."""
    d = functions.shape[1]
    pieces = functions.reshape(-1, ORDER, d)
    within = np.einsum("ij,kjd->kid", integrate, pieces) * (weight.reshape(-1, ORDER).sum(1) / 2)[:, None, None]
    whole = np.einsum("kj,kjd->kd", weight.reshape(-1, ORDER), pieces)
    start = np.cumsum(whole, axis=0) - whole
    return np.asarray(whole.sum(axis=0) - 2 * (start[:, None, :] + within).reshape(-1, d))


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

"""Gaussians refitted on their own samples under replace, where everything is known in closed form: mean, covariance, divergences.

T draws a generation; S_n is the fitted covariance with divisor T - 1 ("unbiased") or T ("ml"), the truth N(0, Sigma). The other
policies are in refeed.theory.gaussian_pools.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import gammaln, psi

from refeed.theory.registry import law, require
from refeed.theory.schedules import Generations, Schedule, at, by_generation, horizon


def _draws(d: int, T: Schedule, last: int, least: int, why: str) -> np.ndarray:
    rows = by_generation(T, last)
    require(d >= 1, f"d must be at least 1, not {d}")
    require(rows.min() >= d + least, f"T >= d + {least} is needed {why}, but T = {rows.min():g} and d = {d}")
    return rows


def _logdet_steps(d: int, rows: np.ndarray) -> np.ndarray:
    """E log det S_n - E log det S_{n-1}, unbiased: the mean log of a product of chi-squares."""
    j = np.arange(1, d + 1)
    return (psi((rows[:, None] - j) / 2) + np.log(2 / (rows[:, None] - 1))).sum(axis=1)


@law("gaussian.replace_logdet", kind="exact")
def replace_logdet(*, d: int, T: Schedule, n: Generations = None, Sigma: Sequence[float] | None = None) -> np.ndarray:
    """E log det S_n under replace, unbiased: log det Sigma + sum over generations and j = 1..d of psi((T-j)/2) + ln(2/(T-1)).

    Exact (Bartlett): det S_n / det S_{n-1} is a product of independent chi-squares of T-1, ..., T-d degrees of freedom over
    (T-1)^d. It falls without bound, although E S_n = Sigma for ever.
    """
    last = horizon(n, T)
    rows = _draws(d, T, last, 1, "for S to have full rank")
    start = 0.0
    if Sigma is not None:
        matrix = np.asarray(Sigma, dtype=float)
        matrix = np.diag(matrix) if matrix.ndim == 1 else matrix
        require(matrix.shape == (d, d), f"Sigma must be {d} variances or a {d} x {d} matrix, not of shape {matrix.shape}")
        start = float(np.linalg.slogdet(matrix)[1])
    return at(start + np.cumsum(_logdet_steps(d, rows)), n)


@law("gaussian.replace_kl_model_truth", kind="exact")
def replace_kl_model_truth(*, d: int, T: Schedule, n: Generations = None) -> np.ndarray:
    """E KL(model of generation n || truth) under replace, unbiased: (1/2) [sum d/T_i - E log det S_n], linear in n.

    Exact, any Sigma: E tr S_n = d, E|mu_n|^2 = sum d/T_i in units of Sigma.
    """
    rows = _draws(d, T, horizon(n, T), 1, "for S to have full rank")
    return at(np.cumsum(d / rows - _logdet_steps(d, rows)) / 2, n)


@law("gaussian.replace_kl_truth_model", kind="exact")
def replace_kl_truth_model(*, d: int, T: Schedule, n: Generations = None) -> np.ndarray:
    """E KL(truth || model of generation n) under replace, unbiased: the excess log-loss on real data, exponential in n.

    (1/2) [d prod r_i + q_n - d + E log det S_n], r = (T-1)/(T-d-2), q_n = r (q_{n-1} + d/T). Exact, any Sigma, T >= d + 3:
    E S_n^-1 = r S_{n-1}^-1 for a Wishart, and the mean is independent of it.
    """
    last = horizon(n, T)
    rows = _draws(d, T, last, 3, "for the mean to exist")
    r, logdet = (rows - 1) / (rows - d - 2), np.cumsum(_logdet_steps(d, rows))
    curve, precision, q = np.empty(last), float(d), 0.0
    for i in range(last):
        precision *= r[i]
        q = r[i] * (q + d / rows[i])
        curve[i] = (precision + q - d + logdet[i]) / 2
    return at(curve, n)


@law("gaussian.replace_sigma", kind="exact")
def replace_sigma(*, T: Schedule, n: Generations = None) -> np.ndarray:
    """E sigma_n of the fitted standard deviation under replace in one dimension, unbiased variance: prod c4(T_i).

    Exact: c4(T) = sqrt(2/(T-1)) Gamma(T/2)/Gamma((T-1)/2), the mean of a chi over its root mean square.
    """
    rows = _draws(1, T, horizon(n, T), 1, "for a variance")
    c4 = np.sqrt(2 / (rows - 1)) * np.exp(gammaln(rows / 2) - gammaln((rows - 1) / 2))
    return at(np.cumprod(c4), n)


@law("gaussian.replace_variance", kind="exact")
def replace_variance(*, T: Schedule, n: Generations = None, estimator: str = "ml", temperature: float = 1.0) -> np.ndarray:
    """E of the fitted variance under replace: prod (1 - 1/T_i) by maximum likelihood, 1 for ever with divisor T - 1.

    Exact, in every direction of any dimension. `temperature` multiplies the sampling variance from generation 2 on.
    """
    rows = _draws(1, T, horizon(n, T), 1, "for a variance")
    require(estimator in ("ml", "unbiased"), f"estimator must be 'ml' or 'unbiased', not {estimator!r}")
    require(temperature >= 0, f"temperature must not be negative, not {temperature}")
    factor = np.full(len(rows), float(temperature))
    factor[0] = 1.0
    return at(np.cumprod(factor * (1 - 1 / rows if estimator == "ml" else 1.0)), n)

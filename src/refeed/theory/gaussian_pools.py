"""One-dimensional Gaussians refitted on a pool: accumulate, accumulate-subsample, reservoir, fresh and fixed real rows.

Truth N(0, 1). The value is E sigma_n^2 of the fitted variance, or E mu_n^2 of the fitted mean. Both are exact because the second
moments of (sum x, sum x^2) map linearly to themselves; in d dimensions they hold in every direction. Maximum likelihood (divisor
the number of rows) where a law does not offer the choice. `temperature` multiplies the sampling variance.
"""

from __future__ import annotations

import numpy as np

from refeed.theory.mean import budget, reservoir_moments
from refeed.theory.registry import law, require
from refeed.theory.schedules import Generations, Schedule, at, by_generation, horizon


def _temperature(temperature: float) -> None:
    require(temperature >= 0, f"temperature must not be negative, not {temperature}")


def _pool(T: Schedule, n: Generations, M: float | None, divisor: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """E sigma_n^2 and E mu_n^2, the fit being on the whole pool (M None) or on M rows of it."""
    last = horizon(n, T)
    rows = by_generation(T, last)
    _temperature(temperature)
    require(rows[0] >= 2 and bool((rows >= 0).all()), f"T >= 2 is needed for a variance, not T = {rows.min():g}")
    if M is not None:
        budget(M, rows, "the subsample")
    variance, mean = np.empty(last), np.empty(last)
    pool, squared_sum, squares = rows[0], rows[0], rows[0]  # rows, E (sum x)^2, E sum x^2
    for g in range(last):
        if g:
            t, sampled = rows[g], temperature * variance[g - 1]
            squared_sum += 2 * t * squared_sum / pool + t**2 * mean[g - 1] + t * sampled
            squares += t * (mean[g - 1] + sampled)
            pool += t
        spread = (squares - squared_sum / pool) / (pool - 1)
        mean[g] = squared_sum / pool**2
        if M is None:
            variance[g] = spread * (pool - 1) / (pool - divisor)
        else:
            mean[g] += (1 - M / pool) / M * spread
            variance[g] = squares / pool - mean[g]
    return variance, mean


def _divisor(estimator: str) -> int:
    require(estimator in ("ml", "unbiased"), f"estimator must be 'ml' or 'unbiased', not {estimator!r}")
    return int(estimator == "unbiased")


@law("gaussian.accumulate_variance", kind="exact")
def accumulate_variance(*, T: Schedule, n: Generations = None, estimator: str = "ml", temperature: float = 1.0) -> np.ndarray:
    """E of the fitted variance under accumulate: prod (1 - T_i/N_i^2) by maximum likelihood, in the end sin(x)/x, x = pi/sqrt(T).

    Exact. estimator = "unbiased" divides by N - 1. A temperature below 1 makes it fall like n^-(1 - temperature): not bounded.
    """
    return at(_pool(T, n, None, _divisor(estimator), temperature)[0], n)


@law("gaussian.accumulate_mean_error", kind="exact")
def accumulate_mean_error(*, T: Schedule, n: Generations = None, estimator: str = "ml", temperature: float = 1.0) -> np.ndarray:
    """E mu_n^2 of the fitted mean under accumulate.

    Exact; by maximum likelihood at temperature 1 it is 1 - E sigma_n^2, since the pool's mean square stays 1.
    """
    return at(_pool(T, n, None, _divisor(estimator), temperature)[1], n)


@law("gaussian.accumulate_subsample_variance", kind="exact")
def accumulate_subsample_variance(*, T: Schedule, M: float, n: Generations = None, temperature: float = 1.0) -> np.ndarray:
    """E of the fitted variance under accumulate-subsample: each fit is on M rows of the pool, drawn without replacement.

    Exact, maximum likelihood; it stays above 0 for ever.
    """
    return at(_pool(T, n, M, 0, temperature)[0], n)


@law("gaussian.accumulate_subsample_mean_error", kind="exact")
def accumulate_subsample_mean_error(*, T: Schedule, M: float, n: Generations = None, temperature: float = 1.0) -> np.ndarray:
    """E mu_n^2 of the fitted mean under accumulate-subsample: each fit is on M rows of the pool.

    Exact, maximum likelihood.
    """
    return at(_pool(T, n, M, 0, temperature)[1], n)


def _reservoir(T: Schedule, M: float, n: Generations, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    last = horizon(n, T)
    rows = by_generation(T, last)
    _temperature(temperature)
    budget(M, rows, "the reservoir")
    replaced, mixed = reservoir_moments(rows, M)
    variance, mean = np.empty(last), np.empty(last)
    variance[0], mean[0] = (M - 1) / M, 1 / M
    for g in range(1, last):
        sampled = temperature * variance[g - 1]
        step = (mixed[g] * M / (M - 1) * variance[g - 1] / M**3 if M > 1 else 0.0) + replaced[g] * sampled / M**2
        mean[g] = mean[g - 1] + step
        variance[g] = (1 - replaced[g] / M) * variance[g - 1] + replaced[g] * sampled / M - step
    return variance, mean


@law("gaussian.reservoir_variance", kind="exact")
def reservoir_variance(*, T: Schedule, M: float, n: Generations = None, temperature: float = 1.0) -> np.ndarray:
    """E of the fitted variance when training on a uniform reservoir of M rows, T new ones a generation; it falls like n^(-2/M).

    Exact, maximum likelihood: the recursion of mean.reservoir with the model's own variance for s^2.
    """
    return at(_reservoir(T, M, n, temperature)[0], n)


@law("gaussian.reservoir_mean_error", kind="exact")
def reservoir_mean_error(*, T: Schedule, M: float, n: Generations = None, temperature: float = 1.0) -> np.ndarray:
    """E mu_n^2 of the fitted mean when training on a uniform reservoir of M rows.

    Exact, maximum likelihood.
    """
    return at(_reservoir(T, M, n, temperature)[1], n)


def _mixture(n_real: float, n_synthetic: float) -> float:
    require(
        n_real >= 0 and n_synthetic >= 0 and n_real + n_synthetic >= 2,
        f"n_real, n_synthetic >= 0 and at least 2 rows are needed, not n_real = {n_real:g} and n_synthetic = {n_synthetic:g}",
    )
    return n_real + n_synthetic


@law("gaussian.fresh_variance", kind="exact")
def fresh_variance(*, n_real: float, n_synthetic: float, n: Generations, temperature: float = 1.0) -> np.ndarray:
    """E of the fitted variance on n_real fresh real rows and n_synthetic of the latest model; generation 1 is all real.

    Exact, maximum likelihood: E mu^2 = (n_s^2 E mu^2 + n_s E sigma^2 + n_r)/M^2.
    """
    M = _mixture(n_real, n_synthetic)
    _temperature(temperature)
    curve = np.empty(horizon(n))
    variance, mean = 1 - 1 / M, 1 / M
    for g in range(len(curve)):
        if g:
            sampled = temperature * variance
            square = (n_real + n_synthetic * (mean + sampled)) / M
            mean = (n_synthetic**2 * mean + n_synthetic * sampled + n_real) / M**2
            variance = square - mean
        curve[g] = variance
    return at(curve, n)


@law("gaussian.fixed_real_variance", kind="exact")
def fixed_real_variance(*, n_real: float, n_synthetic: float, n: Generations, temperature: float = 1.0) -> np.ndarray:
    """E of the fitted variance on the same n_real real rows and n_synthetic of the latest model; generation 1 has the real ones.

    Exact, maximum likelihood; also carries E (sum of the real rows x mu_n).
    """
    M = _mixture(n_real, n_synthetic)
    require(n_real >= 1, f"n_real >= 1 is needed for generation 1, not {n_real:g}")
    _temperature(temperature)
    curve = np.empty(horizon(n))
    variance, mean, along = 1 - 1 / n_real, 1 / n_real, 1.0
    for g in range(len(curve)):
        if g:
            sampled = temperature * variance
            square = (n_real + n_synthetic * (mean + sampled)) / M
            mean = (n_real + 2 * n_synthetic * along + n_synthetic**2 * mean + n_synthetic * sampled) / M**2
            along = (n_real + n_synthetic * along) / M
            variance = square - mean
        curve[g] = variance
    return at(curve, n)

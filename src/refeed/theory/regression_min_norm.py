"""Least squares past the interpolation threshold, and loops that estimate their label noise: isotropic Gaussian rows."""

from __future__ import annotations

from typing import Literal

import numpy as np

from refeed.theory.registry import law, require
from refeed.theory.schedules import Generations, Schedule, at, by_generation, horizon


def noise_trace(d: int, rows: np.ndarray) -> np.ndarray:
    """E tr G^+ of G ~ W_d(N, I): d/(N-d-1) above the threshold, N/(d-N-1) below, infinite for N = d-1, d, d+1."""
    with np.errstate(divide="ignore"):
        above, below = d / (rows - d - 1), rows / (d - rows - 1)
    return np.where(rows > d + 1, above, np.where(rows < d - 1, below, np.inf))


def _noise(variance: np.ndarray, trace: np.ndarray) -> np.ndarray:
    """variance x trace, where no noise on an infinite trace is nothing."""
    return np.where(variance > 0, variance * np.where(variance > 0, trace, 0.0), 0.0)


def _check(d: int, rows: np.ndarray, s: Schedule, signal: float) -> None:
    require(d >= 1, f"d must be at least 1, not {d}")
    require(bool((rows >= 1).all()), f"T must be at least 1, not {rows.min():g}")
    require(bool((np.asarray(s, dtype=float) >= 0).all()), f"s is a standard deviation and must not be negative, not {s}")
    require(signal >= 0, f"signal = |w*|^2 must not be negative, not {signal}")


@law("regression.replace_min_norm", kind="exact")
def replace_min_norm(*, d: int, T: Schedule, n: Generations = None, signal: float = 1.0, s: Schedule = 1.0) -> np.ndarray:
    """Replace by minimum-norm least squares with any T: for T < d - 1, (1 - rho^n) [|w*|^2 + s^2 T/((d-T-1)(1-rho))], rho = T/d.

    Exact, isotropic. w_n = P_n w_{n-1} + X_n^+ E_n with P_n the projection on a random T-dimensional space: E|w_n|^2 and E w_n.w*
    shrink by rho a generation, noise adds E tr G^+. With T by generation rho_i = min(1, T_i/d); infinite where |T_i - d| <= 1.
    """
    last = horizon(n, T, s)
    rows, noise = by_generation(T, last), by_generation(s, last)
    _check(d, rows, s, signal)
    kept, added = np.minimum(1.0, rows / d), _noise(noise**2, noise_trace(d, rows))
    curve, length, overlap = np.empty(last), float(signal), float(signal)
    for i in range(last):
        length, overlap = kept[i] * length + added[i], kept[i] * overlap
        curve[i] = length - 2 * overlap + signal
    return at(curve, n)


@law("regression.accumulate_min_norm", kind="exact")
def accumulate_min_norm(*, d: int, T: Schedule, n: Generations = None, signal: float = 1.0, s: Schedule = 1.0) -> np.ndarray:
    """Accumulate by minimum-norm least squares: |w*|^2 (1 - T_1/d)_+ + sum_i s_i^2 (T_i/N_i) h(N_i), across the threshold N_i = d.

    Exact, isotropic; h(N) = E tr G^+ is d/(N-d-1), or N/(d-N-1) for N < d - 1, infinite for |N - d| <= 1. Interpolation gives
    X'y = G w_{n-1} + X_n'E_n still, and w_{n-1} lies in the row space, so w_n = w_{n-1} + G_n^+ X_n'E_n: the signal lost in
    generation 1 is never lost further.
    """
    last = horizon(n, T, s)
    rows, noise = by_generation(T, last), by_generation(s, last)
    require(bool((rows >= 0).all()), "T must not be negative")
    _check(d, rows[:1], s, signal)
    total = np.cumsum(rows)
    added = _noise(noise**2 * rows / total, noise_trace(d, total))
    return at(signal * max(0.0, 1 - rows[0] / d) + np.cumsum(added), n)


@law("regression.replace_estimated_noise", kind="exact")
def replace_estimated_noise(
    *, d: int, T: Schedule, n: Generations = None, s: float = 1.0, estimator: Literal["ml", "unbiased"] = "ml"
) -> np.ndarray:
    """Replace when the model estimates the label noise too, by maximum likelihood: err_n = sum_i s^2 (1-d/T)^(i-1) d/(T-d-1).

    Bounded by s^2 T/(T-d-1), because the noise itself dies out. Exact: RSS/T has mean (1 - d/T) times the noise variance and is
    independent of w. With estimator = "unbiased", RSS/(T-d), the mean is that of known noise.
    """
    last = horizon(n, T)
    rows = by_generation(T, last)
    require(d >= 1 and s >= 0, f"d >= 1 and s >= 0 are needed, not d = {d} and s = {s}")
    require(rows.min() >= d + 2, f"T >= d + 2 is needed for the mean to exist, but T = {rows.min():g} and d = {d}")
    require(estimator in ("ml", "unbiased"), f"estimator must be 'ml' or 'unbiased', not {estimator!r}")
    shrink = 1 - d / rows if estimator == "ml" else np.ones(last)
    variance = s**2 * np.concatenate([[1.0], np.cumprod(shrink)[:-1]])
    return at(np.cumsum(variance * d / (rows - d - 1)), n)

"""Least squares in a feedback loop: x ~ N(0, Sigma) in d dimensions, y = x.w + N(0, s^2), labels by the latest model.

The value is always the mean excess risk E (w_n - w*)' Sigma (w_n - w*), in squared label units. Generation 1 is fitted
on T_1 real rows, so n = 1 gives s^2 d / (T - d - 1). "Fresh X" draws new x for every generation; "same X", the design
of arXiv:2404.01413, relabels the real x every time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from refeed.theory.mean import accumulate_subsample as mean_accumulate_subsample
from refeed.theory.registry import law, require
from refeed.theory.schedules import Generations, Schedule, at, by_generation, horizon


def _check(d: int, smallest: float, s: Schedule, what: str = "T") -> None:
    require(d >= 1, f"d must be at least 1, not {d}")
    require(smallest >= d + 2, f"{what} >= d + 2 is needed for the mean to exist, but {what} = {smallest:g} and d = {d}")
    require(bool((np.asarray(s, dtype=float) >= 0).all()), f"s is a standard deviation and must not be negative, not {s}")


def _shift(d: int, Sigma: Sequence[float] | None, Sigma_test: Sequence[float] | None) -> float:
    """tr(Sigma_test Sigma^-1) / d: 1 unless the test rows have another covariance than the training rows."""
    if Sigma_test is None:
        return 1.0
    train = np.eye(d) if Sigma is None else _matrix(Sigma, d, "Sigma")
    return float(np.trace(np.linalg.solve(train, _matrix(Sigma_test, d, "Sigma_test")))) / d


def _matrix(value: Sequence[float], d: int, name: str) -> np.ndarray:
    array = np.asarray(value, dtype=float)
    array = np.diag(array) if array.ndim == 1 else array
    require(array.shape == (d, d), f"{name} must be {d} variances or a {d} x {d} matrix, not of shape {array.shape}")
    return array


@law("regression.replace", kind="exact")
def replace(
    *,
    d: int,
    T: Schedule,
    n: Generations = None,
    s: Schedule = 1.0,
    Sigma: Sequence[float] | None = None,
    Sigma_test: Sequence[float] | None = None,
) -> np.ndarray:
    """Each model learns only from T_i rows of the one before: err_n = sum_i s_i^2 d / (T_i - d - 1), fresh X.

    Exact for Gaussian x, since the w_i - w_{i-1} = G_i^-1 X_i' E_i are independent with mean zero, and
    E tr(Sigma G^-1) = d / (T - d - 1).
    """
    last = horizon(n, T, s)
    rows, noise = by_generation(T, last), by_generation(s, last)
    _check(d, rows.min(), s)
    return at(np.cumsum(noise**2 * d / (rows - d - 1)), n) * _shift(d, Sigma, Sigma_test)


@law("regression.accumulate", kind="exact")
def accumulate(
    *,
    d: int,
    T: Schedule,
    n: Generations = None,
    s: Schedule = 1.0,
    Sigma: Sequence[float] | None = None,
    Sigma_test: Sequence[float] | None = None,
) -> np.ndarray:
    """Each model learns from all rows so far: err_n = sum_i s_i^2 (T_i / N_i) d / (N_i - d - 1), fresh X.

    Exact for Gaussian x: w_i - w_{i-1} = G_i^-1 X_i' E_i with G_i the Gram matrix of all N_i rows, and by
    exchangeability of rows E G_i^-1 X_i'X_i G_i^-1 = (T_i / N_i) E G_i^-1. Lower than the published
    s^2 d / (T - d - 1) sum 1/i^2, which is for the same X.
    """
    last = horizon(n, T, s)
    rows, noise = by_generation(T, last), by_generation(s, last)
    _check(d, rows[0], s, "T_1")
    require(bool((rows >= 0).all()), "T must not be negative")
    total = np.cumsum(rows)
    return at(np.cumsum(noise**2 * rows / total * d / (total - d - 1)), n) * _shift(d, Sigma, Sigma_test)


@law("regression.replace_multiple", kind="exact")
def replace_multiple(*, d: int, T: float, n: Generations, s: Schedule = 1.0) -> np.ndarray:
    """Model i learns from i T rows of the one before: err_n = sum_i s_i^2 d / (i T - d - 1), fresh X; about log n.

    Exact: the law of replace with T_i = i T. The control that has accumulate's training-set size without its memory.
    """
    last = horizon(n, s)
    _check(d, T, s)
    return replace(d=d, T=T * np.arange(1, last + 1), n=n, s=s)


def _same_x(d: int, T: float, n: Generations, s: Schedule, power: int) -> np.ndarray:
    last = horizon(n, s)
    _check(d, T, s)
    generation = np.arange(1.0, last + 1)
    return at(d / (T - d - 1) * np.cumsum(by_generation(s, last) ** 2 / generation**power), n)


@law("regression.replace_same_x", kind="exact")
def replace_same_x(*, d: int, T: float, n: Generations, s: Schedule = 1.0) -> np.ndarray:
    """Replace when every generation relabels the real x: err_n = d / (T - d - 1) sum_i s_i^2.

    Exact: given X, w_i - w_{i-1} = G^-1 X' E_i are independent with covariance s_i^2 G^-1. In mean as with fresh X.
    """
    return _same_x(d, T, n, s, 0)


@law("regression.accumulate_same_x", kind="exact")
def accumulate_same_x(*, d: int, T: float, n: Generations, s: Schedule = 1.0) -> np.ndarray:
    """Accumulate when every generation relabels the real x: err_n = d / (T - d - 1) sum_i s_i^2 / i^2.

    Exact: i G w_i = (i - 1) G w_{i-1} + G w_{i-1} + X' E_i, hence w_i - w_{i-1} = G^-1 X' E_i / i.
    """
    return _same_x(d, T, n, s, 2)


@law("regression.replace_multiple_same_x", kind="exact")
def replace_multiple_same_x(*, d: int, T: float, n: Generations, s: Schedule = 1.0) -> np.ndarray:
    """Model i learns from the real x labelled i times over by the one before: err_n = d / (T - d - 1) sum_i s_i^2 / i.

    Exact: the Gram matrix is i G and the sum of i independent label noises has variance i s_i^2. Grows like log n.
    """
    return _same_x(d, T, n, s, 1)


@law("regression.accumulate_bound", kind="bound")
def accumulate_bound(*, d: int, T: float, s: float = 1.0) -> float:
    """The published limit of accumulate: err_n <= s^2 d / (T - d - 1) pi^2 / 6 at every generation, T rows each.

    The supremum over n with the same X (arXiv:2404.01413, theorem for linear regression); an upper bound with fresh X.
    """
    _check(d, T, s)
    return float(s**2 * d / (T - d - 1) * np.pi**2 / 6)


@law("regression.accumulate_schedule_bound", kind="bound")
def accumulate_schedule_bound(*, d: int, T: float, s: float = 1.0) -> float:
    """Accumulate after T real rows stays below s^2 [d/(T-d-1) + d/(d+1) ln(T/(T-d-1))], whatever T_2, T_3, ... are.

    A bound. From T_i f(N_i) <= the integral of f(N) = 1 / (N (N - d - 1)) between N_{i-1} and N_i, fresh X.
    """
    _check(d, T, s)
    return float(s**2 * (d / (T - d - 1) + d / (d + 1) * np.log(T / (T - d - 1))))


@law("regression.accumulate_subsample", kind="classical limit")
def accumulate_subsample(*, d: int, T: float, n: Generations, M: float | None = None, s: float = 1.0) -> np.ndarray:
    """Everything is kept, each model learns from M rows drawn without replacement: d times the mean model's error.

    Classical limit, d << M, where least squares behaves as d separate means; from about d = M / 2 on the true error is
    unbounded in n and this value is far too low. M = T by default.
    """
    size = T if M is None else M
    require(size >= 2 * d, f"M >= 2 d is needed for the error to stay bounded, but M = {size:g} and d = {d}")
    return d * s**2 * mean_accumulate_subsample(T=T, M=size, n=n)

"""Ridge regression in a feedback loop, w = argmin |y - Xw|^2 + ridge |w|^2: the penalty is absolute, it does not grow with the
rows.

Q = (G + ridge)^-1, G = X'X. Isotropic Gaussian rows and exact real-Wishart means (refeed.theory.wishart), unless a law says
otherwise.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq

from refeed.theory.registry import TheoryError, law, require
from refeed.theory.schedules import Generations, Schedule, at, by_generation, horizon
from refeed.theory.wishart import wishart_means


def _check(d: int, rows: np.ndarray, ridge: float, s: Schedule, signal: float = 0.0) -> None:
    require(d >= 1, f"d must be at least 1, not {d}")
    require(bool((rows >= 1).all()), f"T must be at least 1, not {rows.min():g}")
    require(ridge > 0, f"ridge must be positive, not {ridge}; without a penalty use the laws of least squares")
    require(bool((np.asarray(s, dtype=float) >= 0).all()), f"s is a standard deviation and must not be negative, not {s}")
    require(signal >= 0, f"signal = |w*|^2 must not be negative, not {signal}")


@lru_cache(maxsize=4096)
def _scalars(T: float, d: int, ridge: float) -> tuple[float, float, float]:
    shrink, square, noise = wishart_means(
        T, d, [lambda x: x / (x + ridge), lambda x: (x / (x + ridge)) ** 2, lambda x: x / (x + ridge) ** 2]
    )
    return shrink / d, square / d, noise


@law("regression.ridge_scalars", kind="exact")
def ridge_scalars(*, T: float, d: int, ridge: float) -> np.ndarray:
    """What ridge does to a signal and to noise: [E tr(I - ridge Q)/d, E tr(I - ridge Q)^2/d, E tr(Q G Q)] for T rows.

    Exact at every T and d, by Pfaffian quadrature over the eigenvalues of a real Wishart matrix.
    """
    _check(d, np.array([T]), ridge, 0)
    return np.array(_scalars(float(T), int(d), float(ridge)))


@law("regression.ridge_scalars_asymptotic", kind="asymptotic")
def ridge_scalars_asymptotic(*, T: float, d: int, ridge: float) -> np.ndarray:
    """The scalars of regression.ridge_scalars in the Marchenko-Pastur limit, T and d large together.

    Asymptotic: E Q = q I with q = 1/(ridge + T/(1 + d q)), and E Q^2 = -dq/d ridge. Off by .3 % at d = 50, 8 % at d = 4.
    """
    _check(d, np.array([T]), ridge, 0)
    b = ridge + T - d
    q = 2.0 / (b + np.sqrt(b**2 + 4 * d * ridge))  # the positive root of d ridge q^2 + b q = 1
    slope = (q + d * q**2) / (2 * d * ridge * q + b)  # -dq/d ridge
    return np.array([1 - ridge * q, 1 - 2 * ridge * q + ridge**2 * slope, d * (q - ridge * slope)])


@law("regression.ridge_replace", kind="exact")
def ridge_replace(
    *, T: Schedule, d: int, ridge: float, n: Generations = None, signal: float = 1.0, s: Schedule = 1.0
) -> np.ndarray:
    """Replace by ridge, fresh X: E|w_n|^2 = g E|w_{n-1}|^2 + s^2 nu and err_n = E|w_n|^2 - 2 abar^n |w*|^2 + |w*|^2.

    Exact, (abar, g, nu) the ridge scalars: w_n = (I - ridge Q) w_{n-1} + Q X'E with X independent of the past. Tends to
    |w*|^2 + s^2 nu/(1-g): bounded, but everything known of w* is forgotten.
    """
    last = horizon(n, T, s)
    rows, noise = by_generation(T, last), by_generation(s, last)
    _check(d, rows, ridge, s, signal)
    curve, length, overlap = np.empty(last), float(signal), float(signal)
    for i in range(last):
        shrink, square, nu = _scalars(rows[i], int(d), float(ridge))
        length, overlap = square * length + noise[i] ** 2 * nu, shrink * overlap
        curve[i] = length - 2 * overlap + signal
    return at(curve, n)


@law("regression.ridge_accumulate", kind="exact")
def ridge_accumulate(
    *, T: Schedule, d: int, ridge: float, n: Generations = None, signal: float = 1.0, s: Schedule = 1.0
) -> np.ndarray:
    """Accumulate by ridge of a constant absolute penalty: err_1(ridge) + sum_{i>=2} s_i^2 (T_i/N_i) E tr(Q_i G_i Q_i).

    Exact: (G_n + ridge) w_n = (G_{n-1} + ridge) w_{n-1} + X_n'(X_n w_{n-1} + E_n), so w_n = w_{n-1} + Q_n X_n'E_n: the bias is paid
    once. A penalty that grows with the rows compounds instead.
    """
    last = horizon(n, T, s)
    rows, noise = by_generation(T, last), by_generation(s, last)
    require(bool((rows >= 0).all()), "T must not be negative")
    _check(d, rows[:1], ridge, s, signal)
    total = np.cumsum(rows)
    nu = np.array([_scalars(N, int(d), float(ridge))[2] for N in total])
    shrink, square, _ = _scalars(total[0], int(d), float(ridge))
    bias = signal * (1 - 2 * shrink + square)
    return at(bias + np.cumsum(noise**2 * rows / total * nu), n)


@law("regression.ridge_fresh", kind="exact")
def ridge_fresh(
    *,
    d: int,
    n_real: float,
    n_synthetic: float,
    ridge: float,
    n: Generations,
    signal: float = 1.0,
    T1: float | None = None,
    s: Schedule = 1.0,
) -> np.ndarray:
    """The fresh-data loop by ridge: n_real fresh real rows and n_synthetic of the latest model, pooled; generation 1 on T1 real
    rows.

    Exact. e_n = Q (G_s e_{n-1} - ridge w* + X'E): the mean error along w* and E|e_n|^2 close among themselves. E G_s Q^2 G_s needs
    E tr G tr(GQ^2) = M d E tr GQ^2 + 2 d/dt E tr(tG)Q(tG)^2 at t = 1, since tr G is the sufficient statistic of scale.
    """
    last = horizon(n, s)
    M = n_real + n_synthetic
    first = M if T1 is None else T1
    require(n_real >= 0 and n_synthetic >= 0, f"n_real and n_synthetic must not be negative, not {n_real:g} and {n_synthetic:g}")
    _check(d, np.array([M, first]), ridge, s, signal)
    noise = by_generation(s, last)
    share = n_synthetic / M
    shrink, square, nu = _scalars(float(M), int(d), float(ridge))
    (scaled,) = wishart_means(M, int(d), [lambda x: x * (ridge - x) / (x + ridge) ** 3])
    same = (2 * d * square + M * d * nu + 2 * scaled) / (M + 2)  # E sum_i |x_i|^2 x_i'Q^2 x_i
    q = share * same / d + (share * (n_synthetic - 1) / (M - 1) if M > 1 else 0.0) * (square - same / d)
    bias = ridge**2 * (1 - 2 * shrink + square) / ridge**2  # ridge^2 E tr Q^2 / d
    curve = np.empty(last)
    along, size = 0.0, 0.0  # E e.w*, E|e|^2
    for i in range(last):
        if i == 0:
            lean, wide, added = _scalars(float(first), int(d), float(ridge))
            along, size = -signal * (1 - lean), signal * (1 - 2 * lean + wide) + noise[0] ** 2 * added
        else:
            size = q * size - 2 * ridge * share * nu / d * along + signal * bias + noise[i] ** 2 * nu
            along = share * shrink * along - signal * (1 - shrink)
        curve[i] = size
    return at(curve, n)


@law("regression.ridge_replace_asymptotic", kind="asymptotic")
def ridge_replace_asymptotic(
    *,
    d: int,
    T: Schedule,
    ridge: float,
    Sigma_diag: Sequence[float] | str,
    w: Sequence[float] | str,
    n: Generations = None,
    s: Schedule = 1.0,
) -> np.ndarray:
    """Replace by ridge for any diagonal covariance Sigma_diag and any w*: numbers, or a formula in k = 1..d such as "5/k".

    Asymptotic, 1-2 % off at d = 40. Deterministic equivalents with Sigma = diag: E Q = (ridge + kappa Sigma)^-1,
    kappa = T/(1 + tr Sigma E Q), and E[Q B Q] keeps diagonals apart from the rest, so d numbers are carried from one
    generation to the next.
    """
    last = horizon(n, T, s)
    rows, noise = by_generation(T, last), by_generation(s, last)
    _check(d, rows, ridge, s)
    sigma, truth = _vector(Sigma_diag, d, "Sigma_diag"), _vector(w, d, "w")
    require(bool((sigma > 0).all()), "Sigma_diag must be positive")
    second, mean, curve = truth**2, truth.copy(), np.empty(last)
    for i in range(last):
        q, sandwich = _equivalent(rows[i], ridge, sigma)
        added = noise[i] ** 2 * (q - ridge * sandwich(np.ones(d)))  # E[Q G Q]
        second = second * (1 - 2 * ridge * q) + ridge**2 * sandwich(second) + added
        mean = (1 - ridge * q) * mean
        curve[i] = sigma @ (second - 2 * mean * truth + truth**2)
    return at(curve, n)


def _equivalent(T: float, ridge: float, sigma: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """The diagonal of E Q, and the map B -> diagonal of E[Q B Q] for diagonal B."""

    def gap(log_kappa: float) -> float:
        kappa = np.exp(log_kappa)
        return float(kappa * (1 + np.sum(sigma / (ridge + kappa * sigma))) - T)

    kappa = np.exp(brentq(gap, -100, 100, xtol=1e-14))
    q = 1 / (ridge + kappa * sigma)
    scale = kappa**2 / T
    feedback = 1 - scale * np.sum((sigma * q) ** 2)
    return q, lambda b: q**2 * (b + sigma * scale * np.sum(sigma * q**2 * b) / feedback)


_OPERATORS: dict[type, Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


def _vector(value: Sequence[float] | str, d: int, name: str) -> np.ndarray:
    """d numbers: as given, or from a formula in k, with numbers, d, + - * / ^ and brackets; nothing is executed."""
    if not isinstance(value, str):
        array = np.asarray(value, dtype=float)
        array = np.full(d, float(array)) if array.ndim == 0 else array
        require(array.shape == (d,), f"{name} must have d = {d} entries, not shape {array.shape}")
        return array
    formula = value.partition(",")[0].strip()

    def compute(node: ast.expr, k: np.ndarray) -> np.ndarray:
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            return np.float64(node.value) * np.ones_like(k)
        if isinstance(node, ast.Name) and node.id in ("k", "d"):
            return k if node.id == "k" else np.full_like(k, d)
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return np.asarray(_OPERATORS[type(node.op)](compute(node.left, k), compute(node.right, k)))
        if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
            return np.asarray(_OPERATORS[type(node.op)](compute(node.operand, k)))
        raise TheoryError(f"{name} must be {d} numbers or a formula in k such as '5/k', not {value!r}")

    try:
        parsed = ast.parse(formula.replace("^", "**"), mode="eval").body
    except SyntaxError:
        raise TheoryError(f"{name} must be {d} numbers or a formula in k such as '5/k', not {value!r}") from None
    return compute(parsed, np.arange(1.0, d + 1))

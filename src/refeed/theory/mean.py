"""Estimating a mean in a feedback loop, in one dimension with variance s^2: err_n = E (m_n - m*)^2.

Times d it is the classical limit (many more rows than features) of least squares: one screen that ranks the policies.
"""

from __future__ import annotations

import numpy as np

from refeed.theory.registry import law, require
from refeed.theory.schedules import Generations, Schedule, at, by_generation, horizon

ZETA2 = np.pi**2 / 6


def budget(M: float, rows: np.ndarray, what: str) -> None:
    """Refuse a subsample or reservoir of M rows that generation 1 cannot fill."""
    require(rows[0] >= 2 and bool((rows >= 0).all()), f"T >= 2 is needed, not T = {rows.min():g}")
    require(1 <= M <= rows[0], f"1 <= M <= T is needed, {what} being filled from the T_1 = {rows[0]:g} real rows, not M = {M:g}")


def _noise(s: Schedule, last: int) -> np.ndarray:
    noise = by_generation(s, last)
    require(bool((noise >= 0).all()), f"s is a standard deviation and must not be negative, not {s}")
    return noise


@law("mean.accumulate_subsample", kind="exact")
def accumulate_subsample(*, T: Schedule, M: float, n: Generations = None, s: Schedule = 1.0) -> np.ndarray:
    """Every row is kept; each mean is taken over M of them, drawn without replacement. T rows are added a generation.

    Exact recursion on the pool's squared mean A and sum of squares Q: V = A + (1/M)(1 - M/N)(Q - N A)/(N - 1), then T rows
    with squared mean V + s^2/T join the pool, and E(pool mean x fresh mean) = A.
    """
    last = horizon(n, T, s)
    rows, noise = by_generation(T, last), _noise(s, last)
    budget(M, rows, "the subsample")
    curve = np.empty(last)
    pool, mean_square, squares = rows[0], noise[0] ** 2 / rows[0], rows[0] * noise[0] ** 2
    for g in range(last):
        if g:
            t, variance = rows[g], noise[g] ** 2
            mean_square = (pool**2 * mean_square + 2 * pool * t * mean_square + t**2 * curve[g - 1] + t * variance) / (
                pool + t
            ) ** 2
            squares += t * (curve[g - 1] + variance)
            pool += t
        curve[g] = mean_square + (1 - M / pool) / M * (squares - pool * mean_square) / (pool - 1)
    return at(curve, n)


@law("mean.accumulate_subsample_limit", kind="classical limit")
def accumulate_subsample_limit(*, budget_ratio: float = 1.0) -> float:
    """M err_n / s^2 after many generations of accumulate-subsample, for large T and M: zeta(2) + 2 (M/T)(zeta(2) - 1).

    Classical limit of mean.accumulate_subsample. `budget_ratio` is M / T, at most 1. M = T gives 3 zeta(2) - 2 = 2.93: what the
    fixed training-set size costs.
    """
    require(0 < budget_ratio <= 1, f"budget_ratio = M/T must be in (0, 1], not {budget_ratio}")
    return float(ZETA2 + 2 * budget_ratio * (ZETA2 - 1))


@law("mean.accumulate_limit", kind="classical limit")
def accumulate_limit() -> float:
    """T err_n / s^2 of accumulate after many generations with T rows each: zeta(2) = pi^2 / 6 = 1.645.

    Classical limit of sum_i T_i/N_i^2 with N_i = i T.
    """
    return float(ZETA2)


@law("mean.geometric_batches_limit", kind="classical limit")
def geometric_batches_limit(*, r: float) -> float:
    """T_1 err_n / s^2 of accumulate after many generations when the pool grows r-fold each time: 1 + 1/r.

    Classical limit: sum T_i/N_i^2 with N_i = T_1 r^(i-1). It tends to 2, the bound over all schedules, as r falls to 1.
    """
    require(r > 1, f"r > 1 is needed for the pool to grow, not {r}")
    return 1 + 1 / r


@law("mean.reservoir", kind="exact")
def reservoir(*, T: Schedule, M: float, n: Generations = None, s: Schedule = 1.0) -> np.ndarray:
    """A uniform reservoir of M rows of all that ever came by, T new ones a generation; each mean is that of the reservoir.

    Exact recursion on the error V and the reservoir's variance v (divisor M - 1). H of the M rows are replaced, H hypergeometric:
    V += E[(M-H) H] v/M^3 + E[H] s^2/M^2.
    """
    last = horizon(n, T, s)
    rows, noise = by_generation(T, last), _noise(s, last)
    budget(M, rows, "the reservoir")
    replaced, mixed = reservoir_moments(rows, M)
    curve = np.empty(last)
    error, spread = noise[0] ** 2 / M, (M - 1) * noise[0] ** 2  # spread: sum of squares about the mean
    curve[0] = error
    for g in range(1, last):
        v = spread / (M - 1) if M > 1 else 0.0
        step = mixed[g] * v / M**3 + replaced[g] * noise[g] ** 2 / M**2
        spread = (1 - replaced[g] / M) * spread + replaced[g] * noise[g] ** 2 - M * step
        error += step
        curve[g] = error
    return at(curve, n)


def reservoir_moments(rows: np.ndarray, M: float) -> tuple[np.ndarray, np.ndarray]:
    """E H and E (M - H) H by generation, H the number of a reservoir's M rows that the newest batch replaces."""
    total = np.cumsum(rows)
    share = rows / total
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.where(total > 1, M * share * (1 - share) * (total - M) / (total - 1), 0.0)
    return M * share, M * M * share - variance - (M * share) ** 2


@law("mean.reservoir_limit", kind="classical limit")
def reservoir_limit(*, n: Generations) -> np.ndarray:
    """M err_n / s^2 of a large uniform reservoir at generation n: 2 H_n - H_n^(2), about 2 ln n - .49, whatever T is.

    Classical limit (M and T large) of mean.reservoir; a scalar n gives the curve 1..n.
    """
    i = np.arange(1.0, horizon(n) + 1)
    return at(np.cumsum(2 / i - 1 / i**2), n)


@law("mean.window_slope", kind="classical limit")
def window_slope(*, K: float, T: float, d: int = 1, s: float = 1.0) -> float:
    """Growth per generation, in the long run, of the error when training on the last K batches: 4 s^2 d / (T (K+1)^2).

    Classical limit. w_n is the average of the last K batches' sources plus noise; the renewal argument gives each batch's noise
    the final weight 2/(K+1), so err grows by (2/(K+1))^2 s^2 d/T. K = 1 is replace.
    """
    require(
        K >= 1 and T > 0 and d >= 1 and s >= 0, f"K >= 1, T > 0, d >= 1, s >= 0 are needed, not K = {K}, T = {T}, d = {d}, s = {s}"
    )
    return 4 * s**2 * d / (T * (K + 1) ** 2)


@law("mean.window", kind="exact")
def window(*, T: Schedule, K: int, n: Generations = None, s: Schedule = 1.0) -> np.ndarray:
    """Each mean is taken over the rows of the last K generations, T_i new ones each time; K = 1 is replace.

    Exact, O(K n^2): every mean is a weighted sum of the noises of all batches so far, and the weights obey the same average.
    """
    last = horizon(n, T, s)
    rows, noise = by_generation(T, last), _noise(s, last)
    require(K >= 1 and bool((rows >= 1).all()), f"K >= 1 and T >= 1 are needed, not K = {K} and T = {rows.min():g}")
    weights = np.zeros((last + 1, last))  # of each batch's noise in each mean; mean 0 is the truth
    for g in range(1, last + 1):
        kept = np.arange(max(1, g - int(K) + 1), g + 1)
        share = rows[kept - 1] / rows[kept - 1].sum()
        weights[g] = share @ weights[kept - 1]
        weights[g, kept - 1] += share
    return at(weights[1:] ** 2 @ (noise**2 / rows), n)


@law("mean.real_stream", kind="classical limit")
def real_stream(*, r: Schedule, T: Schedule, n: Generations = None, s: Schedule = 1.0) -> np.ndarray:
    """Accumulate r fresh real and T synthetic rows a generation: V_n = (1 - rho/n)^2 V_{n-1} + s^2/(n^2 (r+T)), rho = r/(r+T).

    By generation, N_n rows in all: V_n = (1 - r_n/N_n)^2 V_{n-1} + s_n^2 (r_n + T_n)/N_n^2.

    Classical limit, s^2 d for s^2 in regression. V_n falls like n^-min(1, 2 rho), log n / n at rho = 1/2: to keep the 1/n of real
    data, at least half of the stream must be real. Generation 1 has r + T real rows.
    """
    last = horizon(n, r, T, s)
    real, rows, noise = by_generation(r, last), by_generation(T, last), _noise(s, last)
    sound = min(real.min(), rows.min()) >= 0 and real[0] + rows[0] > 0
    require(bool(sound), f"r, T >= 0 and r + T > 0 are needed, not r = {r}, T = {T}")
    total, value, curve = np.cumsum(real + rows), 0.0, np.empty(last)
    for g in range(last):
        value = (1 - real[g] / total[g]) ** 2 * value + noise[g] ** 2 * (real[g] + rows[g]) / total[g] ** 2
        curve[g] = value
    return at(curve, n)

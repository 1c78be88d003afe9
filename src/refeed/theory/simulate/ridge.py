"""Ridge regression under replace, O(d) a generation in the bidiagonal basis of the last model; and with fresh real rows."""

from __future__ import annotations

import numpy as np

from refeed.theory.registry import require
from refeed.theory.schedules import Generations, Schedule, by_generation, horizon
from refeed.theory.simulate.gram import CHUNK, bartlett
from refeed.theory.simulate.radial import Randomness, chi2, cosine


def ridge_replace(
    *,
    d: int,
    T: Schedule,
    ridge: float,
    n: Generations = None,
    signal: float = 1.0,
    s: Schedule = 1.0,
    runs: int,
    seed: Randomness = 0,
) -> np.ndarray:
    """Excess risk of ridge regression of constant absolute penalty under replace with fresh X, any T.

    Exact. Golub-Kahan bidiagonalisation of X from v_1 = w/|w| gives independent chi variates, alpha_i of T-i+1 and beta_i of d-i
    degrees of freedom, in a basis that is otherwise uniform. In it the new w solves a tridiagonal system, and w* is its component
    along w and a uniform direction: |w|^2 and w.w* are a Markov chain.
    """
    rng, last = np.random.default_rng(seed), horizon(n, T, s)
    rows, noise = by_generation(T, last), by_generation(s, last)
    require(d >= 1 and rows.min() >= 1, f"d >= 1 and T >= 1 are needed, not d = {d} and T = {rows.min():g}")
    require(ridge > 0, f"ridge must be positive, not {ridge}")
    errors = np.empty((runs, last))
    length, overlap = np.full(runs, np.sqrt(signal)), np.full(runs, float(signal))
    for g in range(last):
        first, rest = _refit(rng, d, int(rows[g]), ridge, noise[g], length, runs)
        along = np.divide(overlap, length, out=np.zeros(runs), where=length > 0)
        across = np.sqrt(np.maximum(signal - along**2, 0.0))
        overlap = along * first + (across * np.sqrt(rest) * cosine(rng, d - 1, runs) if d > 1 else 0.0)
        square = first**2 + rest
        length = np.sqrt(square)
        errors[:, g] = square - 2 * overlap + signal
    return errors


def _refit(
    rng: np.random.Generator, d: int, T: int, ridge: float, s: float, length: np.ndarray, runs: int
) -> tuple[np.ndarray, np.ndarray]:
    """The new w along v_1, and the squared length of the rest: (B'B + ridge)^-1 B'(|w| B e_1 + E), by Thomas' algorithm."""
    size = min(d, T + 1)
    alpha = np.zeros((size, runs))
    beta = np.zeros((size, runs))
    error = np.zeros((size, runs))
    for i in range(min(d, T)):
        alpha[i] = np.sqrt(chi2(rng, T - i, runs))
        error[i] = s * rng.standard_normal(runs)
        if i + 1 < size:
            beta[i] = np.sqrt(chi2(rng, d - i - 1, runs))
    diagonal = alpha**2 + ridge
    right = alpha * error
    diagonal[1:] += beta[:-1] ** 2
    right[1:] += beta[:-1] * error[:-1]
    upper = alpha[:-1] * beta[:-1]
    right[0] += alpha[0] ** 2 * length
    if size > 1:
        right[1] += upper[0] * length
    # eliminate from the last unknown upwards, so that the first is found first
    for i in range(size - 2, -1, -1):
        factor = upper[i] / diagonal[i + 1]
        diagonal[i] -= factor * upper[i]
        right[i] -= factor * right[i + 1]
    first = value = right[0] / diagonal[0]
    rest = np.zeros(runs)
    for i in range(1, size):
        value = (right[i] - upper[i - 1] * value) / diagonal[i]
        rest += value**2
    return first, rest


def ridge_fresh(
    *,
    d: int,
    n_real: int,
    n_synthetic: int,
    ridge: float,
    n: int,
    T1: int | None = None,
    signal: float = 1.0,
    s: Schedule = 1.0,
    runs: int,
    seed: Randomness = 0,
) -> np.ndarray:
    """Excess risk of ridge regression on n_real fresh real rows and n_synthetic rows of the latest model, pooled.

    Exact: e_n = Q (G_s e_{n-1} + X'E - ridge w*), the real and the synthetic Gram matrix from Bartlett's factors. O(d^3) a
    generation, whatever the rows.
    """
    rng, noise = np.random.default_rng(seed), by_generation(s, horizon(n, s))
    first = n_real + n_synthetic if T1 is None else T1
    require(d >= 1 and min(n_real, n_synthetic) >= 0, f"d >= 1 and rows >= 0 are needed, not {d}, {n_real}, {n_synthetic}")
    require(ridge > 0 and signal >= 0, f"ridge must be positive and signal not negative, not {ridge} and {signal}")
    errors = np.empty((runs, n))
    for start in range(0, runs, CHUNK):
        out = errors[start : start + CHUNK]
        error: np.ndarray = np.zeros((len(out), d, 1))
        for g in range(n):
            gram = np.zeros((len(out), d, d)) + ridge * np.eye(d)
            right = np.zeros((len(out), d, 1))
            right[:, 0] -= ridge * np.sqrt(signal)
            for rows, kind in ((n_real if g else first, "real"), (n_synthetic if g else 0, "synthetic")):
                if rows:
                    factor = bartlett(rng, d, rows, len(out))
                    part = factor @ factor.transpose(0, 2, 1)
                    gram += part
                    right += noise[g] * (factor @ rng.standard_normal((len(out), factor.shape[2], 1)))
                    if kind == "synthetic":
                        right += part @ error
            error = np.linalg.solve(gram, right)
            out[:, g] = (error[:, :, 0] ** 2).sum(axis=1)
    return errors

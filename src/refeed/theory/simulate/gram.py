"""Least squares and ridge on an accumulating pool, in O(d^3) a generation and O(d^2) memory whatever T and n."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.linalg import lapack

from refeed.theory.registry import require
from refeed.theory.schedules import Generations, Schedule, by_generation, horizon
from refeed.theory.simulate.radial import Randomness

BATCHED = 24  # up to this d many lineages go through NumPy together; above, each goes through LAPACK in place
CHUNK = 512


def accumulate(
    *,
    d: int,
    T: Schedule,
    n: Generations = None,
    s: Schedule = 1.0,
    ridge: float = 0.0,
    signal: float = 0.0,
    runs: int,
    seed: Randomness = 0,
) -> np.ndarray:
    """Excess risk of least squares (or ridge, with |w*|^2 = signal) under accumulate with fresh X; T_1 >= d, or any T with a ridge.

    Exact, in error form: e_n = e_{n-1} + (G_n + ridge)^-1 X_n'E_n, and given X_n, X_n'E_n = s A z with X_n'X_n = A A' and z
    normal. A is Bartlett's triangular factor of W_d(T_n), or X_n' itself where T_n < d. The rows are never drawn.
    """
    rng, last = np.random.default_rng(seed), horizon(n, T, s)
    rows, noise = by_generation(T, last).astype(int), by_generation(s, last)
    require(d >= 1, f"d must be at least 1, not {d}")
    require(ridge > 0 or rows[0] >= d, f"T_1 >= d is needed without a ridge, but T_1 = {rows[0]} and d = {d}")
    require(ridge >= 0 and signal >= 0, f"ridge and signal must not be negative, not {ridge} and {signal}")
    errors = np.empty((runs, last))
    if d <= BATCHED:
        for start in range(0, runs, CHUNK):
            chunk = errors[start : start + CHUNK]
            _batch(rng, d, rows, noise, ridge, signal, chunk)
    else:
        for lineage in errors:
            _single(rng, d, rows, noise, ridge, signal, lineage)
    return errors


def _batch(
    rng: np.random.Generator, d: int, rows: np.ndarray, noise: np.ndarray, ridge: float, signal: float, out: np.ndarray
) -> None:
    runs = len(out)
    gram = np.zeros((runs, d, d)) + ridge * np.eye(d)
    error = np.zeros((runs, d, 1))
    for g, T in enumerate(rows):
        factor = bartlett(rng, d, int(T), runs)
        gram += factor @ factor.transpose(0, 2, 1)
        right = noise[g] * (factor @ rng.standard_normal((runs, factor.shape[2], 1)))
        if g == 0:
            right[:, 0, 0] -= ridge * np.sqrt(signal)
        error += np.linalg.solve(gram, right)
        out[:, g] = (error[:, :, 0] ** 2).sum(axis=1)


def bartlett(rng: np.random.Generator, d: int, T: int, runs: int) -> np.ndarray:
    """A with A A' ~ W_d(T): lower triangular (Bartlett), or the rows themselves where they are fewer than d."""
    if d > T:
        return rng.standard_normal((runs, d, T))
    factor = np.zeros((runs, d, d))
    below = np.tril_indices(d, -1)
    factor[:, below[0], below[1]] = rng.standard_normal((runs, len(below[0])))
    on = np.arange(d)
    factor[:, on, on] = np.sqrt(2.0 * rng.standard_gamma((T - on) / 2, (runs, d)))
    return factor


@lru_cache(maxsize=4)
def _above(d: int) -> np.ndarray:
    """Positions above the diagonal in a flat array of Fortran order."""
    row, column = np.triu_indices(d, 1)
    return row + column * d


def _single(
    rng: np.random.Generator, d: int, rows: np.ndarray, noise: np.ndarray, ridge: float, signal: float, out: np.ndarray
) -> None:
    """One lineage, in upper triangles: U with U U' ~ W_d(T) has chi's of T-d+1..T degrees of freedom on the diagonal."""
    gram = np.zeros((d, d), order="F")
    on = np.arange(d)
    gram[on, on] = ridge
    error = np.zeros(d)
    above = _above(d)
    for g, T in enumerate(rows):
        if d > T:
            factor = rng.standard_normal((d, int(T)))
            right = noise[g] * (factor @ rng.standard_normal(int(T)))
            gram += factor @ factor.T
        else:
            factor = np.zeros((d, d), order="F")
            factor.ravel(order="K")[above] = rng.standard_normal(len(above))
            factor[on, on] = np.sqrt(2.0 * rng.standard_gamma((T - d + 1 + on) / 2))
            right = noise[g] * (factor @ rng.standard_normal(d))
            product, _ = lapack.dlauum(factor, lower=0, overwrite_c=1)
            gram += product
        if g == 0:
            right[0] -= ridge * np.sqrt(signal)
        solved, info = lapack.dposv(gram, right, lower=0)[1:]
        if info:
            raise np.linalg.LinAlgError("the Gram matrix is not positive definite")
        error += solved
        out[g] = error @ error

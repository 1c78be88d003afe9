"""The mean model under any policy whose training sets have a known composition: how many rows of which generation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from refeed.theory.registry import law, require
from refeed.theory.schedules import Schedule, by_generation

Counts = Sequence[Sequence[float]] | np.ndarray


@law("mean.composition", kind="classical limit")
def composition(*, counts: Counts, T: Schedule, again: bool | str = False, s: Schedule = 1.0) -> np.ndarray:
    """Each mean is taken over counts[n][g] rows of the batches g = 1..n (batch 1 real), chosen by chance: E (m_n - m*)^2.

    `again` says that rows are chosen anew of all T_g each time, as subsamples of an archive are; else what is dropped is gone.

    Classical limit of least squares; exact for means and fixed counts. Where counts are random, as a reservoir's, their means are
    given, which many rows justify. Derivation: m_n = sum_g omega_ng (m_{g-1} + xi_ng), xi the mean noise of the chosen rows of g;
    two of these share the variance s^2 over the size of the set that the later one was drawn from, T_g or the earlier count, and
    covariances with earlier means close. O(n^4).
    Reproduces subsamples, reservoirs, windows and fixed real rows (docs/theory/families.md).
    """
    k = np.asarray(counts, dtype=float)
    last = len(k)
    require(k.ndim == 2 and k.shape == (last, last), f"counts must be a square, generations by batches, not of shape {k.shape}")
    require(bool((k >= 0).all() and (np.tril(k) == k).all()), "counts must not be negative, nor take rows of batches to come")
    require(bool((k.sum(axis=1) > 0).all()), "every generation needs rows to train on")
    rows, noise = by_generation(T, last), by_generation(s, last)
    anew = again in (True, "true", "True", 1)
    require(bool((k <= rows * (1 + 1e-9)).all()), "a batch has fewer rows than counts asks for")
    require(
        anew or bool((np.diff(np.where(np.tril(np.ones_like(k)) > 0, k, rows), axis=0) <= 1e-9).all()),
        "rows that were dropped come back",
    )
    weight = k / k.sum(axis=1, keepdims=True)
    K = np.zeros((last + 1, last + 1))  # covariances of the means, the truth first
    for n in range(1, last + 1):
        of = weight[n - 1, :n]
        shared = np.zeros((n, n))  # Cov(xi_ng, m_j), g by j = 0..n-1
        for j in range(1, n):
            held = rows[:j] if anew else k[j - 1, :j]
            own = np.divide(noise[:j] ** 2, held, out=np.zeros(j), where=held > 0)
            shared[:, j] = shared[:, :j] @ weight[j - 1, :j]
            shared[:j, j] += weight[j - 1, :j] * own
        K[n, :n] = K[:n, n] = of @ (K[:n, :n] + shared)
        fresh = np.divide(noise[:n] ** 2, k[n - 1, :n], out=np.zeros(n), where=k[n - 1, :n] > 0)
        K[n, n] = of @ (K[:n, :n] + shared + shared.T) @ of + of**2 @ fresh
    return np.diagonal(K)[1:].copy()


def forgetting(batches: np.ndarray, survival: float) -> np.ndarray:
    """Counts where every kept row survives a generation with that chance."""
    age = np.subtract.outer(np.arange(len(batches)), np.arange(len(batches)))
    return np.where(age >= 0, batches * float(survival) ** np.maximum(age, 0), 0.0)


def strata(batches: np.ndarray, capacity: float) -> np.ndarray:
    """Equal shares of `capacity` rows for every batch so far."""
    n = len(batches)
    return np.tril(np.minimum(np.repeat((capacity / np.arange(1, n + 1))[:, None], n, axis=1), batches))


def pinned_reservoir(batches: np.ndarray, capacity: float) -> np.ndarray:
    """All of batch 1, and `capacity` rows of the others in proportion."""
    counts = np.tril(np.tile(batches, (len(batches), 1)))
    synthetic = counts[:, 1:].sum(axis=1, keepdims=True)
    counts[:, 1:] *= np.minimum(1.0, capacity / np.maximum(synthetic, 1e-300))
    return counts


def real_share(batches: np.ndarray, share: float, *, floor: bool = False) -> np.ndarray:
    """As many rows as leave the share of batch 1 at `share`; with `floor` all of batch 1, and no more of the others than that."""
    counts = np.tril(np.tile(batches, (len(batches), 1)))
    real, synthetic = batches[0], counts[:, 1:].sum(axis=1)
    most = real * (1 - share) / share
    taken = np.minimum(synthetic, most)
    counts[:, 1:] *= np.divide(taken, synthetic, out=np.zeros_like(taken), where=synthetic > 0)[:, None]
    if not floor:
        counts[1:, 0] = taken[1:] * share / (1 - share)
    return counts

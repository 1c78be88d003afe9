"""Gaussians refitted on their own samples: the mean and the scatter matrix are drawn, never the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from refeed.theory.registry import require
from refeed.theory.schedules import Generations, Schedule, by_generation, horizon
from refeed.theory.simulate.gram import bartlett
from refeed.theory.simulate.radial import Randomness


@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianRuns:
    """What became of each lineage, shape (runs, n), the truth being N(0, I)."""

    mean_error: np.ndarray  # |mu_n|^2
    trace: np.ndarray  # tr S_n, the variance for d = 1
    logdet: np.ndarray  # log det S_n
    kl_model_truth: np.ndarray
    kl_truth_model: np.ndarray


def gaussian(
    *,
    d: int,
    T: Schedule,
    n: Generations = None,
    policy: Literal["replace", "accumulate"] = "replace",
    estimator: Literal["ml", "unbiased"] = "ml",
    temperature: float = 1.0,
    runs: int,
    seed: Randomness = 0,
) -> GaussianRuns:
    """Mean and covariance fits in d dimensions under replace or accumulate, T > d rows in generation 1.

    Exact: of T rows of N(mu, S) the mean is N(mu, S/T) and, independently, the scatter is L A A'L' with A A' ~ W_d(T-1) (Bartlett),
    L L' = S. Pools add up: scatter, plus N T/(N+T) times the square of the difference of means.
    """
    rng, last = np.random.default_rng(seed), horizon(n, T)
    rows = by_generation(T, last)
    require(
        rows[0] > d and rows.min() >= (d + 1 if policy == "replace" else 1), f"T > d is needed, but T = {rows.min():g}, d = {d}"
    )
    require(policy in ("replace", "accumulate"), f"policy must be 'replace' or 'accumulate', not {policy!r}")
    less = 1.0 if estimator == "unbiased" else 0.0
    mean, root = np.zeros((runs, d)), np.broadcast_to(np.eye(d), (runs, d, d))
    pool, center, scatter = 0.0, np.zeros((runs, d)), np.zeros((runs, d, d))
    found = [np.empty((runs, last)) for _ in range(5)]
    for g in range(last):
        t = rows[g]
        fresh = mean + (root @ rng.standard_normal((runs, d, 1)))[:, :, 0] / np.sqrt(t)
        spread = root @ bartlett(rng, d, int(t) - 1, runs) if t > 1 else np.zeros((runs, d, 1))
        new = spread @ spread.transpose(0, 2, 1)
        if policy == "replace" or g == 0:
            pool, center, scatter = t, fresh, new
        else:
            gap = fresh - center
            scatter = scatter + new + pool * t / (pool + t) * gap[:, :, None] * gap[:, None, :]
            center = center + t / (pool + t) * gap
            pool += t
        mean, covariance = center, scatter / (pool - less)
        lower = np.linalg.cholesky(covariance)
        root = np.sqrt(temperature) * lower
        _measure(mean, covariance, lower, [column[:, g] for column in found])
    return GaussianRuns(**dict(zip(GaussianRuns.__dataclass_fields__, found, strict=True)))


def _measure(mean: np.ndarray, covariance: np.ndarray, lower: np.ndarray, out: list[np.ndarray]) -> None:
    d = mean.shape[1]
    inverse = np.linalg.inv(lower)
    square = (mean**2).sum(axis=1)
    trace = np.trace(covariance, axis1=1, axis2=2)
    logdet = 2 * np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(axis=1)
    precision = (inverse**2).sum(axis=(1, 2))
    distance = ((inverse @ mean[:, :, None])[:, :, 0] ** 2).sum(axis=1)
    out[0][:], out[1][:], out[2][:] = square, trace, logdet
    out[3][:] = (trace - d + square - logdet) / 2
    out[4][:] = (precision - d + distance + logdet) / 2

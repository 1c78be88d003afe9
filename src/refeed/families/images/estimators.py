"""Distances and counts between two sets of feature vectors, in NumPy: small enough to read, checked against public implementations.

`real` and `made` are (rows, dimensions). All depend on the number of rows and on the features: compare only what shares both.
"""

from __future__ import annotations

import numpy as np


def frechet_distance(real: np.ndarray, made: np.ndarray) -> float:
    """|m1 - m2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2)), with unbiased covariances (Dowson and Landau, 1982; Heusel et al., 2017).

    The trace of the root is the sum of the roots of the eigenvalues of C1^(1/2) C2 C1^(1/2), which is symmetric. Biased upward at
    few rows; with at most as many rows as dimensions the covariances are singular.
    """
    (m1, c1), (m2, c2) = ((x.mean(0), np.cov(x, rowvar=False).reshape(x.shape[1], -1)) for x in _float64(real, made))
    values, vectors = np.linalg.eigh(c1)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ c2 @ root), 0, None)).sum()
    return float(((m1 - m2) ** 2).sum() + np.trace(c1) + np.trace(c2) - 2 * cross)


def kernel_distance(real: np.ndarray, made: np.ndarray) -> float:
    """The unbiased squared maximum mean discrepancy of the kernel (x.y / d + 1)^3 (Binkowski et al., 2018), over all rows at once.

    Zero on average between sets of one distribution, so it may be negative.
    """
    x, y = _float64(real, made)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: np.ndarray) -> float:
        k = kernel(a, a)
        return float((k.sum() - np.trace(k)) / (len(a) * (len(a) - 1)))

    return within(x) + within(y) - 2 * float(kernel(x, y).mean())


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a_i - b_j|^2, (rows of a, rows of b), float64; centred first, so that little is lost to rounding."""
    a, b = _float64(a, b)
    centre = b.mean(0)
    a, b = a - centre, b - centre
    squared = (a * a).sum(1)[:, None] + (b * b).sum(1)[None, :] - 2 * (a @ b.T)
    return np.clip(squared, 0, None)


def nearest(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row of a, the squared distance to the nearest row of b, and which that is; b is read 2000 rows at a time."""
    squared, place = np.full(len(a), np.inf), np.zeros(len(a), dtype=np.int64)
    for first in range(0, len(b), 2000):
        part = squared_distances(a, b[first : first + 2000])
        here = part.argmin(1)
        found = part[np.arange(len(a)), here]
        closer = found < squared
        squared[closer], place[closer] = found[closer], first + here[closer]
    return squared, place


def precision_recall(real: np.ndarray, made: np.ndarray, *, neighbours: int = 5) -> dict[str, float]:
    """Precision and recall (Kynkaanniemi et al., 2019), density and coverage (Naeem et al., 2020), by k nearest neighbours.

    With B(x) the ball around x up to its k-th nearest neighbour in its own set: precision is the share of made rows in some real
    ball, recall that of real rows in some made ball; density is (made rows in real balls, counted each time) / (k x made rows);
    coverage is the share of real balls that hold a made row. Under collapse precision rises while recall and coverage fall.
    """

    def radii(x: np.ndarray) -> np.ndarray:
        own = squared_distances(x, x)
        np.fill_diagonal(own, 0)
        return np.partition(own, neighbours, axis=1)[:, neighbours]  # the row itself is the nearest

    across = squared_distances(real, made)
    real_radii, made_radii = radii(real)[:, None], radii(made)[None, :]
    inside = across < real_radii
    return {
        "precision": float(inside.any(0).mean()),
        "recall": float((across < made_radii).any(1).mean()),
        "density": float(inside.sum(0).mean() / neighbours),
        "coverage": float((across.min(1) < real_radii[:, 0]).mean()),
    }


def vendi(made: np.ndarray, *, scale: float) -> float:
    """exp(entropy of the eigenvalues of K / rows), K_ij = exp(-|x_i - x_j|^2 / (2 scale^2)): an effective number of things.

    Between 1 and the number of rows (Friedman and Dieng, 2023).
    """
    kernel = np.exp(-squared_distances(made, made) / (2 * scale**2))
    np.fill_diagonal(kernel, 1)
    values = np.linalg.eigvalsh(kernel / len(kernel))
    values = values[values > 0]
    return float(np.exp(-(values * np.log(values)).sum()))


def median_distance(x: np.ndarray) -> float:
    """The median distance between two different rows."""
    return float(np.sqrt(np.median(squared_distances(x, x)[np.triu_indices(len(x), 1)])))


def entropy(rates: np.ndarray) -> float:
    """-sum p log p in nats, p being `rates` scaled to sum to 1."""
    p = rates[rates > 0] / rates.sum()
    return float(-(p * np.log(p)).sum())


def _float64(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(array, dtype=np.float64) for array in arrays)

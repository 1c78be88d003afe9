"""Kernel density estimates refitted on their own samples: Gaussian kernel of bandwidth h, truth N(0, 1), one dimension.

By characteristic functions: k = exp(-h^2 t^2/2) of the kernel, phi of the truth. The value is the mean integrated squared error,
(1/2 pi) times the integral of E|psi_n - phi|^2. Sampling from the estimate smooths again, so the bandwidth acts every generation.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from refeed.theory.registry import law, require
from refeed.theory.schedules import Generations, Schedule, at, by_generation, horizon


def _schedules(T: Schedule, h: Schedule, n: Generations) -> tuple[np.ndarray, np.ndarray]:
    last = horizon(n, T, h)
    rows, width = by_generation(T, last), by_generation(h, last)
    require(rows[0] >= 1 and bool((rows >= 0).all()), f"T must be at least 1, not {rows.min():g}")
    require(bool((width > 0).all()), f"h, the bandwidth, must be positive, not {width.min():g}")
    return rows, width


def _mise(curves: Iterator[tuple[np.ndarray, np.ndarray]], t: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """The trapezoid rule, which is exact to rounding for sums of Gaussians whose width is many steps."""
    step = t[1] - t[0]
    values = []
    for square, mean in curves:
        integrand = square - 2 * mean * phi + phi**2
        values.append(step * (integrand.sum() - integrand[0] / 2) / np.pi)
    return np.array(values)


def _grid(width: np.ndarray) -> np.ndarray:
    """From 0 to where every kernel is below 1e-17, in steps far finer than the narrowest Gaussian, that of all kernels in turn."""
    step = min(0.2, 0.5 / np.sqrt(2 + 2 * np.sum(width**2)))
    far = 9.0 / min(float(width.min()), 1.0)
    require(
        far / step < 5e6, "the bandwidths are too far apart for the quadrature: h of very different sizes, or very many generations"
    )
    return np.arange(int(far / step) + 2) * step


@law("kde.mise_replace", kind="exact")
def mise_replace(*, T: Schedule, h: Schedule, n: Generations = None) -> np.ndarray:
    """Mean integrated squared error at generation n under replace: every generation smooths and resamples the one before.

    E|psi_n|^2 = k^2 [(1-1/T) E|psi_{n-1}|^2 + 1/T] and E psi_n = k^n phi, so the bias is that of bandwidth sqrt(n) h. Exact, by
    quadrature in one dimension. T and h by generation.
    """
    rows, width = _schedules(T, h, n)
    require(bool((rows >= 1).all()), f"T must be at least 1, not {rows.min():g}")
    t = _grid(width)
    phi = np.exp(-(t**2) / 2)

    def curves() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        square, mean = phi**2, phi
        for T_i, h_i in zip(rows, width, strict=True):
            k = np.exp(-(h_i**2) * t**2 / 2)
            square, mean = k**2 * ((1 - 1 / T_i) * square + 1 / T_i), k * mean
            yield square, mean

    return at(_mise(curves(), t, phi), n)


@law("kde.mise_accumulate", kind="exact")
def mise_accumulate(*, T: Schedule, h: Schedule, n: Generations = None) -> np.ndarray:
    """Mean integrated squared error at generation n under accumulate: all rows are kept, the estimate smooths the pool.

    Exact: a <- (N^2 a + 2 N T k a + T^2 (k^2 a (1-1/T) + 1/T))/(N+T)^2 for the pool's E|psi|^2, and a factor (N + T k)/(N + T) for
    its mean; like h^2 log n of extra smoothing, so not bounded. T and h by generation.
    """
    rows, width = _schedules(T, h, n)
    t = _grid(width)
    phi = np.exp(-(t**2) / 2)

    def curves() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        pool, square, mean = rows[0], (1 - 1 / rows[0]) * phi**2 + 1 / rows[0], phi
        for i, (T_i, h_i) in enumerate(zip(rows, width, strict=True)):
            if i:
                k = np.exp(-(width[i - 1] ** 2) * t**2 / 2)  # the rows of batch i come from the estimate before
                fresh = (T_i**2 - T_i) * k**2 * square + T_i
                square = (pool**2 * square + 2 * pool * T_i * k * square + fresh) / (pool + T_i) ** 2
                mean = mean * (pool + T_i * k) / (pool + T_i)
                pool += T_i
            k = np.exp(-(h_i**2) * t**2 / 2)
            yield k**2 * square, k * mean

    return at(_mise(curves(), t, phi), n)

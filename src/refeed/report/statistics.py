"""Uncertainty over lineages. The unit of replication is the lineage, and everything comparable is paired by seed.

All intervals are two-sided 95 % t intervals: a percentile bootstrap over three seeds covers 75 %, not 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number over `n` lineages with its 95 % interval, None where one lineage gives no interval.

    `scale` says what "no change" is: 1 for a ratio, 0 for a difference or a slope. `standard_error` is in the units of `value`,
    but of its logarithm for a ratio.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    method: str
    scale: Literal["value", "ratio", "difference", "slope"] = "value"
    standard_error: float | None = None

    @property
    def null(self) -> float:
        return 1.0 if self.scale == "ratio" else 0.0

    @property
    def num_standard_errors(self) -> float | None:
        """How far the estimate is from "no change", in standard errors; None where that is not defined."""
        if not self.standard_error:
            return None
        distance = math.log(self.value) if self.scale == "ratio" else self.value
        return distance / self.standard_error


@lru_cache(maxsize=256)
def t_quantile(n: int) -> float:
    """The 97.5 % quantile of Student's t with n - 1 degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2))


def mean_interval(values: Sequence[float], *, of: str = "mean") -> Estimate:
    """The mean over lineages, mean +- t s / sqrt(n)."""
    array = np.asarray(values, dtype=float)
    n = len(array)
    mean = float(array.mean())
    if n == 1:
        return Estimate(value=mean, low=None, high=None, n=1, method=f"{of}; one lineage, no interval")
    error = float(array.std(ddof=1) / math.sqrt(n))
    half = t_quantile(n) * error
    method = f"{of}, 95 % t interval over {n} lineages"
    return Estimate(value=mean, low=mean - half, high=mean + half, n=n, method=method, standard_error=error)


def paired_difference(after: dict[int, float], before: dict[int, float]) -> Estimate | None:
    """The mean over seeds of after - before; None where no seed has both."""
    seeds = sorted(after.keys() & before.keys())
    if not seeds:
        return None
    estimate = mean_interval([after[seed] - before[seed] for seed in seeds], of="mean of differences paired by seed")
    return replace(estimate, scale="difference")


def paired_ratio(after: dict[int, float], before: dict[int, float]) -> Estimate | None:
    """The geometric mean over seeds of after / before, its interval made on the logarithms.

    Where a value is not positive there is no such ratio, and the paired difference is returned; its method says so.
    """
    seeds = sorted(after.keys() & before.keys())
    if not seeds:
        return None
    if any(after[seed] <= 0 or before[seed] <= 0 for seed in seeds):
        difference = paired_difference(after, before)
        assert difference is not None
        return replace(difference, method=difference.method + " (no ratio: values not all positive)")
    logs = [math.log(after[seed]) - math.log(before[seed]) for seed in seeds]
    estimate = mean_interval(logs, of="geometric mean of ratios paired by seed")
    return replace(
        estimate,
        value=math.exp(estimate.value),
        low=None if estimate.low is None else _exp(estimate.low),
        high=None if estimate.high is None else _exp(estimate.high),
        scale="ratio",
    )


def slopes(generations: np.ndarray, values: np.ndarray, *, first: int, last: int) -> np.ndarray:
    """The least-squares slope per generation of each lineage between two generations; `values` is (seeds, generations).

    Lineages without a value at every generation between are left out.
    """
    inside = (generations >= first) & (generations <= last)
    kept = values[np.isfinite(values[:, inside]).all(axis=1)][:, inside]
    x = generations[inside] - generations[inside].mean()
    return np.asarray(kept @ x / (x @ x)) if len(x) > 1 else np.empty(0)


def slope(generations: np.ndarray, values: np.ndarray, *, first: int, last: int) -> Estimate | None:
    """The mean over lineages of the slope per generation; None where fewer than two generations were measured."""
    every = slopes(generations, values, first=first, last=last)
    if not len(every):
        return None
    of = f"mean of least-squares slopes, generations {first} to {last}"
    return replace(mean_interval(every.tolist(), of=of), scale="slope")


def _exp(exponent: float) -> float:
    return math.exp(exponent) if exponent < 700 else math.inf

"""The mean and the covariance of weighted rows, from their moments, so that an accumulating pool is read once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from refeed.core.errors import Stopped, StudyError
from refeed.core.protocols import Data
from refeed.core.rows import Rows
from refeed.core.seeds import Seed


@dataclass(frozen=True, eq=False)
class GaussianModel:
    mean: np.ndarray  # (d,)
    covariance: np.ndarray  # (d, d)

    def save(self, folder: Path) -> None:
        np.save(folder / "moments.npy", np.vstack([self.mean, self.covariance]), allow_pickle=False)


def moments(rows: Rows) -> np.ndarray:
    """[count, 0..; sum x; X'X], of shape (d + 2, d)."""
    x = rows["x"]
    d = x.shape[1]
    result = np.zeros((d + 2, d))
    result[0, 0] = len(x)
    result[1] = x.sum(axis=0)
    np.matmul(x.T, x, out=result[2:])
    return result


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """The Gaussian of the rows' mean and covariance, by maximum likelihood (divisor N) or unbiased (N - 1).

    The mean over lineages of the unbiased variance never moves under replace, while nearly every lineage's variance dies: look at
    the median and at every lineage.
    """

    estimator: Literal["ml", "unbiased"] = "ml"
    provides: ClassVar[frozenset[str]] = frozenset({"moments", "log_prob"})
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.estimator not in ("ml", "unbiased"):
            raise StudyError(f"learner.estimator must be 'ml' or 'unbiased', not {self.estimator!r}")

    def fit(self, data: Data, *, world: Any, seed: Seed, start: Any = None) -> GaussianModel:
        total = data.total(moments)
        count, mean = total[0, 0], total[1] / total[0, 0]
        covariance = (total[2:] / count - np.outer(mean, mean)) * (count / (count - 1) if self.estimator == "unbiased" else 1.0)
        if not np.isfinite(covariance).all():
            raise Stopped("non-finite", "the fitted moments hold NaN or infinite values")
        return GaussianModel(mean, covariance)

    def load(self, folder: Path) -> GaussianModel:
        saved = np.load(folder / "moments.npy", allow_pickle=False)
        return GaussianModel(saved[0], saved[1:])

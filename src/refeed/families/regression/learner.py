"""Least squares and ridge regression, from the Gram matrix, so that an accumulating pool is read once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from refeed.core.errors import Stopped, StudyError
from refeed.core.protocols import Data
from refeed.core.rows import Rows
from refeed.core.seeds import Seed


@dataclass(frozen=True, eq=False)
class LinearModel:
    coefficients: np.ndarray  # (d,)

    def save(self, folder: Path) -> None:
        np.save(folder / "coefficients.npy", self.coefficients, allow_pickle=False)


def moments(rows: Rows) -> np.ndarray:
    """[X'X | X'y], of shape (d, d + 1): all that a linear fit needs to know of the rows."""
    x = rows["x"]
    d = x.shape[1]
    result = np.empty((d, d + 1))
    np.matmul(x.T, x, out=result[:, :d])
    np.matmul(x.T, rows["y"], out=result[:, d])
    return result


@dataclass(frozen=True, kw_only=True)
class LeastSquares:
    """w = argmin |y - Xw|^2; of all minimisers the shortest, where the rows do not determine one (fewer rows than d)."""

    provides: ClassVar[frozenset[str]] = frozenset({"coefficients"})
    version: ClassVar[int] = 1

    def fit(self, data: Data, *, world: Any, seed: Seed, start: Any = None) -> LinearModel:
        total = data.total(moments)
        gram, cross = total[:, :-1], total[:, -1]
        if data.num_rows >= len(gram):
            try:
                return _checked(np.linalg.solve(gram, cross))
            except np.linalg.LinAlgError:  # repeated rows or zero weights: fewer directions than rows
                pass
        return _checked(np.linalg.pinv(gram, hermitian=True) @ cross)

    def load(self, folder: Path) -> LinearModel:
        return LinearModel(np.load(folder / "coefficients.npy", allow_pickle=False))


@dataclass(frozen=True, kw_only=True)
class Ridge:
    """w = argmin |y - Xw|^2 + penalty |w|^2, the penalty absolute: it does not grow with the rows."""

    penalty: float = 1.0
    provides: ClassVar[frozenset[str]] = frozenset({"coefficients"})
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not self.penalty > 0:
            raise StudyError(f"learner.penalty must be positive, not {self.penalty}; without a penalty use kind = 'ols'")

    def fit(self, data: Data, *, world: Any, seed: Seed, start: Any = None) -> LinearModel:
        total = data.total(moments)
        gram = total[:, :-1] + self.penalty * np.eye(len(total))
        return _checked(np.linalg.solve(gram, total[:, -1]))

    def load(self, folder: Path) -> LinearModel:
        return LinearModel(np.load(folder / "coefficients.npy", allow_pickle=False))


def _checked(coefficients: np.ndarray) -> LinearModel:
    if not np.isfinite(coefficients).all():
        raise Stopped("non-finite", "the fitted coefficients hold NaN or infinite values")
    return LinearModel(coefficients)

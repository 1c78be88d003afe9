"""A kernel density estimate: its rows, their weights and one bandwidth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from refeed.core.errors import StudyError
from refeed.core.protocols import Data
from refeed.core.seeds import Seed


@dataclass(frozen=True, eq=False)
class KernelModel:
    rows: np.ndarray  # (N, d)
    weights: np.ndarray  # (N,), sum 1
    bandwidth: float

    def save(self, folder: Path) -> None:
        bandwidth = np.full((len(self.rows), 1), self.bandwidth)
        np.save(folder / "kernel.npy", np.hstack([self.rows, self.weights[:, None], bandwidth]), allow_pickle=False)


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """Gaussian kernels of one bandwidth on every row: a number, or a rule in the number of rows N and dimensions d.

    "scott" is N^(-1/(d+4)) and "silverman" (N (d+2)/4)^(-1/(d+4)), in the units of the data, not of its spread (as scikit-learn has
    it). Under a rule, accumulating narrows the kernel with the pool.
    """

    bandwidth: float | Literal["scott", "silverman"] = 0.1
    provides: ClassVar[frozenset[str]] = frozenset({"kernel", "log_prob"})
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        known = self.bandwidth in ("scott", "silverman") if isinstance(self.bandwidth, str) else self.bandwidth > 0
        if not known:
            raise StudyError(f"learner.bandwidth must be a positive number, 'scott' or 'silverman', not {self.bandwidth!r}")

    def fit(self, data: Data, *, world: Any, seed: Seed, start: Any = None) -> KernelModel:
        parts = list(data)
        rows = np.concatenate([part["x"] for part, _ in parts])
        weights = np.concatenate([np.full(len(part), weight) for part, weight in parts])
        return KernelModel(rows, weights / weights.sum(), self._width(*rows.shape))

    def _width(self, num_rows: int, d: int) -> float:
        if self.bandwidth == "scott":
            return num_rows ** (-1 / (d + 4))
        if self.bandwidth == "silverman":
            return (num_rows * (d + 2) / 4) ** (-1 / (d + 4))
        return float(self.bandwidth)

    def load(self, folder: Path) -> KernelModel:
        saved = np.load(folder / "kernel.npy", allow_pickle=False)
        return KernelModel(saved[:, :-2], saved[:, -2], float(saved[0, -1]))

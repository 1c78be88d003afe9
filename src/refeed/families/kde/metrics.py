"""How far a kernel density estimate is from the truth: log-loss on held-out points, and the integrated squared error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.special import logsumexp

from refeed.core.errors import StudyError
from refeed.core.protocols import Quantity, World
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.families.kde.learner import Kernel, KernelModel
from refeed.families.kde.source import Cloud

BLOCK = 2**21  # pairs of points in memory at once


@dataclass(frozen=True, kw_only=True)
class LogLoss:
    """The mean negative log-density of held-out real points, in nats a point."""

    name: ClassVar[str] = "log_loss"
    needs: ClassVar[frozenset[str]] = frozenset({"log_prob"})
    quantities: ClassVar[tuple[Quantity, ...]] = (
        Quantity(name="log_loss", unit="nats/point", role="risk", meaning="mean negative log-density of held-out real points"),
    )
    version: ClassVar[int] = 1

    def measure(self, model: KernelModel, *, world: World, samples: Rows | None, seed: Seed) -> dict[str, float]:
        points, rows = world.test["x"], model.rows
        d, width = rows.shape[1], model.bandwidth
        lengths, logs = (rows**2).sum(axis=1), np.log(model.weights)
        scores = np.empty(len(points))
        step = max(1, BLOCK // len(rows))
        for start in range(0, len(points), step):
            block = points[start : start + step]
            squares = np.maximum((block**2).sum(axis=1)[:, None] - 2 * block @ rows.T + lengths, 0.0)
            scores[start : start + step] = logsumexp(logs - squares / (2 * width**2), axis=1)
        return {"log_loss": float(d * np.log(width) + d / 2 * np.log(2 * np.pi) - scores.mean())}


@dataclass(frozen=True, kw_only=True)
class SquaredError:
    """The integrated squared error of the estimate, for the normal line, where the truth has a closed form."""

    name: ClassVar[str] = "squared_error"
    needs: ClassVar[frozenset[str]] = frozenset({"kernel"})
    quantities: ClassVar[tuple[Quantity, ...]] = (
        Quantity(name="squared_error", role="risk", meaning="integral of the squared difference of the densities"),
    )
    version: ClassVar[int] = 1

    def measure(self, model: KernelModel, *, world: World, samples: Rows | None, seed: Seed) -> dict[str, float]:
        if model.rows.shape[1] != 1:
            raise StudyError(
                "metric 'squared_error' needs the source's shape to be 'normal', the one whose density is known.",
                hint="Type: --set source.shape=normal, or use the metric 'log_loss'.",
            )
        x, width = model.rows[:, 0], model.bandwidth
        own = 0.0
        step = max(1, BLOCK // len(x))
        for start in range(0, len(x), step):
            gaps = x[start : start + step, None] - x
            own += float(model.weights[start : start + step] @ np.exp(-(gaps**2) / (4 * width**2)) @ model.weights)
        spread = 1 + width**2
        cross = float(model.weights @ np.exp(-(x**2) / (2 * spread))) / np.sqrt(2 * np.pi * spread)
        return {"squared_error": float(own / np.sqrt(4 * np.pi * width**2) - 2 * cross + 1 / np.sqrt(4 * np.pi))}

    def laws(self, policy: str, *, source: Cloud, learner: Kernel, sampler: object) -> list[dict[str, Any]]:
        """The exact mean under replace and accumulate with a fixed bandwidth."""
        if source.shape != "normal" or policy not in ("replace", "accumulate") or isinstance(learner.bandwidth, str):
            return []
        parameters = {"T": source.rows, "h": learner.bandwidth}
        return [{"quantity": "squared_error", "law": f"kde.mise_{policy}", "parameters": parameters}]

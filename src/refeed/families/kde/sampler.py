"""Rows drawn from a kernel density estimate: one of its rows, and the kernel's noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.families.kde.learner import KernelModel


@dataclass(frozen=True, kw_only=True)
class Resample:
    """An exact draw: a row of the estimate chosen by its weight, moved by N(0, bandwidth^2) in every direction."""

    version: ClassVar[int] = 1

    def sample(self, model: KernelModel, num_rows: int, *, world: Any, seed: Seed) -> Rows:
        rng = seed.generator()
        ladder = np.cumsum(model.weights)
        chosen = np.minimum(np.searchsorted(ladder, ladder[-1] * rng.random(num_rows), side="right"), len(ladder) - 1)
        return Rows(x=model.rows[chosen] + model.bandwidth * rng.standard_normal((num_rows, model.rows.shape[1])))

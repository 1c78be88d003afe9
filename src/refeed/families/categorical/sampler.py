"""Symbols and sequences drawn from a counting model, at a temperature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from refeed.core.errors import StudyError
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.families.categorical.learner import ChainModel, SymbolModel
from refeed.families.categorical.source import draw, walk


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Independent draws from p^(1/temperature), normalised. Below 1 the tail dies of it, without any sampling noise."""

    temperature: float = 1.0
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise StudyError(f"sampler.temperature must be positive, not {self.temperature}")

    def sample(self, model: SymbolModel | ChainModel, num_rows: int, *, world: Any, seed: Seed) -> Rows:
        rng = seed.generator()
        if isinstance(model, SymbolModel):
            return Rows(symbol=draw(self._tempered(model.probabilities), rng.random(num_rows)))
        ladders = np.cumsum(self._tempered(model.transitions), axis=1)
        return Rows(tokens=walk(model.start, ladders, model.length, num_rows, rng))

    def _tempered(self, probabilities: np.ndarray) -> np.ndarray:
        if self.temperature == 1.0:
            return probabilities
        powered = (probabilities / probabilities.max(axis=-1, keepdims=True)) ** (1 / self.temperature)
        return powered / powered.sum(axis=-1, keepdims=True)

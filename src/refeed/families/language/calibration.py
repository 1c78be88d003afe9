"""How many operations a second this machine does in each kind of step of a case: measured on a short fit of random tokens."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from refeed.core.memory import Memory
from refeed.core.rows import Ragged, Rows
from refeed.core.seeds import Seed
from refeed.core.shards import Pool
from refeed.core.steps import Draw, Fit, Measure, Sample, Step
from refeed.families.language.costs import costs
from refeed.families.language.source import LanguageWorld, stories_of

STORIES = 256


@dataclass(frozen=True, kw_only=True)
class _Tokens:
    """A tokenizer of which only the size is known; every token is a byte."""

    size: int
    end: int = 0

    def num_bytes(self, stories: Ragged) -> np.ndarray:
        return stories.lengths


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Stories of random tokens, as long and of as many different tokens as those of a source."""

    row_tokens: float
    vocabulary: int
    rows: int = STORIES
    test_rows: int = STORIES
    rebuilds: ClassVar[bool] = True
    random: ClassVar[bool] = False

    @property
    def num_rows(self) -> int:
        return self.rows

    def draw(self, *, seed: Seed) -> LanguageWorld:
        rng = seed.generator()
        length = round(self.row_tokens)
        tokens = rng.integers(1, self.vocabulary, size=(2, self.rows, length)).astype(np.uint16)
        train, test = (Rows(tokens=Ragged.of(list(stories), np.uint16)) for stories in tokens)
        return LanguageWorld(train=train, test=test, tokenizer=_Tokens(size=self.vocabulary))  # type: ignore[arg-type]


def calibrate(case: Any, *, seconds: float) -> dict[str, float]:
    """FLOP/s by kind of step, from work of about `seconds`; empty where the source does not say how long its stories are.

    Work is doubled until its last part takes a sixth of them (fits) or a tenth (samples); what went before takes as long again.
    """
    if not hasattr(case.source, "row_tokens"):
        return {}
    draw = Draw(Noise(row_tokens=case.source.row_tokens, vocabulary=case.source.vocabulary), Seed(0))
    memory = Memory()
    memory.realise(draw)

    def fit(steps: int, attempt: int = 0) -> Fit:
        return Fit(dataclasses.replace(case.learner, steps=steps), Pool.of(draw.shard), draw, Seed(attempt))

    def took(step: Step) -> float:
        started = time.perf_counter()
        memory.realise(step)
        return time.perf_counter() - started

    took(fit(1))  # what is imported and compiled once
    once, steps, clock = took(fit(1, attempt=1)), 2, 0.0
    while (clock := took(model := fit(steps)) - once) < seconds / 6:
        steps *= 2
    found = {"fit": _flops(model) * (steps - 1) / steps / clock}
    rows, clock = 1, 0.0
    while (clock := took(sample := Sample(case.sampler, model, rows, 1, Seed(rows)))) < seconds / 10:
        rows *= 2
    written = stories_of(memory.realise(sample)).lengths.sum() / (rows * case.source.row_tokens)
    found["sample"] = float(_flops(sample) * written / clock)
    for metric in case.metrics:
        measure = Measure(metric, model, sample.shard, Seed(0))
        if _flops(measure):
            found["measure"] = _flops(measure) / took(measure)
    return found


def _flops(step: Step) -> float:
    cost = costs(step)
    return cost.flops if cost is not None else 0.0

"""Which rows a study can still use. What a bounded policy has dropped need not stay on the disk."""

from __future__ import annotations

import numpy as np

from refeed.core.shards import Shard
from refeed.core.steps import Alter, Draw, Step
from refeed.studies.study import Arm, Study
from refeed.workspace import Workspace

EXHIBITED = 3  # rows of every shard that reports show


def retain(study: Study, store: Workspace) -> int:
    """Trim every shard of the study to the rows that are still needed; returns the bytes that this freed.

    Needed is what a fit, a filter or a metric that is not done yet will read, what the last pool holds (so that the study can be
    extended), and a few rows for the report. All of it is known ahead, since pools follow from counts and seeds alone. The real
    rows that a lineage begins with stay; those that it was given later are trimmed as sampled ones are.
    """
    freed = 0
    for step, needed in _needed(study, store).items():
        if store.has(step) and not store.outcome(step) and len(needed) < step.shard.num_rows:  # type: ignore[attr-defined]
            freed += store.trim(step, needed)
    return freed


def _needed(study: Study, store: Workspace) -> dict[Step, np.ndarray]:
    wanted: dict[str, tuple[Step, list[np.ndarray]]] = {}
    for arm in study.arms:
        if not arm.lineage.source.rebuilds:
            _of_lineage(arm, store, wanted)
    empty = [np.zeros(0, dtype=np.int64)]
    return {step: np.unique(np.concatenate(pieces or empty)) for step, pieces in wanted.values()}


def _of_lineage(arm: Arm, store: Workspace, wanted: dict[str, tuple[Step, list[np.ndarray]]]) -> None:
    def need(shard: Shard, index: np.ndarray | None) -> None:
        if shard.step is not arm.lineage.draw:
            rows = np.arange(shard.num_rows) if index is None else index
            wanted.setdefault(shard.digest, (shard.step, []))[1].append(rows)

    for now in arm.turns:
        step: Step = now.fresh.step
        while True:
            need(step.shard, np.arange(min(EXHIBITED, step.shard.num_rows)))  # type: ignore[attr-defined]
            if not isinstance(step, Alter):
                break
            if not store.has(step):
                need(step.rows, None)
            step = step.rows.step
        if not store.has(now.model):
            for part in now.train:
                need(part.shard, part.index)
        for draw in (step for step in now.steps if isinstance(step, Draw)):
            need(draw.shard, np.arange(min(EXHIBITED, draw.shard.num_rows)))
        for score in now.scores:
            if score.samples is not None and not store.has(score):
                need(score.samples, None)
            if not store.has(score):
                for shard, index in score.looked_back():
                    need(shard, index)
    for part in arm.last_pool:
        need(part.shard, part.index)

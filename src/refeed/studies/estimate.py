"""What the rest of a plan will cost, from what steps of the same kind took in this workspace."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from refeed.core.steps import Alter, Fit, Measure, Part, Sample, Step
from refeed.studies.tasks import Plan
from refeed.workspace import Workspace


def estimate(plan: Plan, store: Workspace) -> list[dict[str, Any]]:
    """A line for each case and kind of step: how many, how many to do, their rows, and seconds (None where nothing is known).

    Seconds are rows to do x the median seconds a row of the finished steps of the same case and kind.
    """
    known = measured(plan, store)
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for case, step in _steps(plan):
        line = lines.setdefault((case, step.kind), {"case": case, "step": step.kind, "steps": 0, "todo": 0, "rows": 0})
        line["steps"] += 1
        if not store.has(step):
            line["todo"] += 1
            line["rows"] += todo(step)
    for (case, kind), line in lines.items():
        group = case, rated_as(kind)
        line["seconds"] = known[group] * line["rows"] if group in known else None
    return list(lines.values())


def measured(plan: Plan, store: Workspace) -> dict[tuple[str, str], float]:
    """The median seconds a row of the finished steps, by case and kind; of a fit over several devices, times their number."""
    found: dict[tuple[str, str], list[float]] = {}
    for case, step in _steps(plan):
        if store.has(step) and (seconds := store.seconds(step)) is not None:
            found.setdefault((case, rated_as(step.kind)), []).append(seconds * store.devices(step) / size(step))
    return {group: statistics.median(values) for group, values in found.items()}


def _steps(plan: Plan) -> Iterator[tuple[str, Step]]:
    """Every step that is kept, once, with its case."""
    seen: set[str] = set()
    for arm in plan.study.arms:
        for step in (step for turn in arm.turns for step in turn.steps):
            if step.digest not in seen and (not step.rebuilds or isinstance(step, Measure)):
                seen.add(step.digest)
                yield arm.case.name, step


def size(step: Step) -> int:
    """The rows that a step reads or writes; 1 where it does not go by rows."""
    if isinstance(step, Fit):
        return max(step.train.num_rows, 1)
    return max(step.num_rows, 1) if isinstance(step, Sample | Part | Alter) else 1


def todo(step: Step) -> int:
    """The rows that are left to a step when those before it are done: none to a sample whose parts have drawn them."""
    return 0 if isinstance(step, Sample) and step.parts else size(step)


def rated_as(kind: str) -> str:
    """The kind of step whose seconds a row are those of steps of this kind."""
    return {"part": "sample", "lineages": "measure"}.get(kind, kind)

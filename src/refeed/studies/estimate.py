"""What the rest of a plan will cost, from what steps of the same kind took in this workspace."""

from __future__ import annotations

import json
import statistics
from typing import Any

from refeed.core.steps import Alter, Fit, Measure, Sample, Step
from refeed.studies.tasks import Plan
from refeed.workspace import Workspace
from refeed.workspace.files import MANIFEST


def estimate(plan: Plan, store: Workspace) -> list[dict[str, Any]]:
    """A line for each case and kind of step: how many, how many to do, their rows, and seconds (None where nothing is known).

    Seconds are rows to do x the median seconds a row of the finished steps of the same case and kind.
    """
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    seen: set[str] = set()
    for arm in plan.study.arms:
        for step in (step for turn in arm.turns for step in turn.steps):
            if step.digest in seen or (step.rebuilds and not isinstance(step, Measure)):
                continue
            seen.add(step.digest)
            group = groups.setdefault((arm.case.name, step.kind), {"steps": 0, "todo": 0, "rows": 0, "rates": []})
            group["steps"] += 1
            rows = _rows(step)
            if store.has(step):
                if (seconds := _seconds(step, store)) is not None:
                    group["rates"].append(seconds / rows)
            else:
                group["todo"] += 1
                group["rows"] += rows
    return [
        {
            "case": case,
            "step": kind,
            "steps": group["steps"],
            "todo": group["todo"],
            "rows": group["rows"],
            "seconds": statistics.median(group["rates"]) * group["rows"] if group["rates"] else None,
        }
        for (case, kind), group in groups.items()
    ]


def _rows(step: Step) -> int:
    if isinstance(step, Fit):
        return max(step.train.num_rows, 1)
    return max(step.num_rows, 1) if isinstance(step, Sample | Alter) else 1


def _seconds(step: Step, store: Workspace) -> float | None:
    if step.digest in store.records:
        return store.records[step.digest].seconds
    try:
        return float(json.loads((store.folder(step) / MANIFEST).read_bytes())["seconds"])
    except (OSError, ValueError, KeyError):
        return None

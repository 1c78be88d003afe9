"""What a plan takes on so many devices: operations, bytes, the critical path, and time by a greedy schedule of its graph."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from refeed import catalogue
from refeed.core.ancestry import unique_rows
from refeed.core.loop import start
from refeed.core.loop import turn as advance
from refeed.core.protocols import Cost, Family
from refeed.core.steps import Part, Sample, Step
from refeed.studies import resources
from refeed.studies.estimate import measured, rated_as, todo
from refeed.studies.study import Study
from refeed.studies.tasks import Plan, Task
from refeed.workspace import Workspace

Costs = Callable[[Step], Cost | None]


@dataclass(frozen=True, kw_only=True)
class Need:
    """All the steps of one case and kind that are to do."""

    case: str
    kind: str
    steps: int
    cost: Cost


@dataclass(frozen=True, kw_only=True)
class Storage:
    """What one lineage of a case and policy has written after its last generation, and what of its rows the policy still keeps."""

    case: str
    policy: str
    rows_made: int
    rows_kept: int
    row_bytes: float
    model_bytes: int

    @property
    def bytes_made(self) -> float:
        return self.rows_made * self.row_bytes

    @property
    def bytes_kept(self) -> float:
        return self.rows_kept * self.row_bytes


def task_costs(plan: Plan) -> dict[str, Cost | None]:
    """By the key of each pending task: what it takes, or None where its family cannot say."""
    known = {case.name: _costs_of(case.family) for case in plan.study.cases}
    found: dict[str, Cost | None] = {}
    for key, task in plan.pending.items():
        costs = known[plan.study.arms[task.arms[0]].case.name]
        found[key] = None if costs is None or task.kind == "lineages" else _cost(task.steps(plan.study)[0], costs)
    return found


def _cost(step: Step, costs: Costs) -> Cost | None:
    """What the family says of `step`; of a sample that is drawn in parts, they have the operations, and it has the bytes."""
    whole = step.whole if isinstance(step, Part) else step
    cost = costs(whole)
    if cost is not None and isinstance(whole, Sample) and whole.parts:
        share = 1 / whole.num_parts if step is not whole else 0.0
        written = cost.bytes if step is whole else 0
        return replace(cost, flops=cost.flops * share, tokens=round(cost.tokens * share), bytes=written)
    return cost


def needs(plan: Plan, costs: Mapping[str, Cost | None]) -> list[Need]:
    """The costs summed by case and kind of step; of the parameters, the largest."""
    groups: dict[tuple[str, str], list[Cost]] = {}
    for key, task in plan.pending.items():
        case = plan.study.arms[task.arms[0]].case.name
        groups.setdefault((case, task.kind), []).append(costs[key] or Cost())
    return [
        Need(
            case=case,
            kind=kind,
            steps=len(group),
            cost=Cost(
                flops=sum(cost.flops for cost in group),
                tokens=sum(cost.tokens for cost in group),
                bytes=sum(cost.bytes for cost in group),
                parameters=max(cost.parameters for cost in group),
            ),
        )
        for (case, kind), group in groups.items()
    ]


def widths(plan: Plan, *, devices: int | None = None) -> dict[str, int]:
    """Over how many devices each pending task is spread: a fit over as many as it asks for, or all `devices` if there are fewer."""
    asked = resources.of(plan.study.resources, "fit").spread
    most = min(asked, devices or asked)
    learners = {key: plan.study.arms[task.arms[0]].case.learner for key, task in plan.pending.items() if task.kind == "fit"}
    return {key: most for key, learner in learners.items() if "devices" in learner.provides}


def critical_path(
    tasks: Mapping[str, Task], seconds: Mapping[str, float], widths: Mapping[str, int] | None = None
) -> tuple[float, list[str]]:
    """The longest chain of `tasks`, each needing the one before it: its seconds, which no number of devices beats, and its keys.

    `seconds` are those on one device; `widths`, over how many each is spread, and by how much it is faster, one unless given.
    """
    wide, ends, before = widths or {}, dict[str, float](), dict[str, str | None]()
    for key, task in tasks.items():
        before[key] = max((need for need in task.after if need in ends), key=lambda need: (ends[need], need), default=None)
        ends[key] = seconds[key] / wide.get(key, 1) + ends.get(before[key] or "", 0.0)
    last, chain = max(ends, key=lambda key: ends[key], default=None), list[str]()
    while last is not None:
        chain.append(last)
        last = before[last]
    return max(ends.values(), default=0.0), chain[::-1]


def makespan(
    tasks: Mapping[str, Task], seconds: Mapping[str, float], *, devices: int, widths: Mapping[str, int] | None = None
) -> float:
    """The seconds that `tasks` take on `devices` equal devices, in the plan's order as an engine hands them out.

    A task begins when it is ready and as many devices are free as `widths` says it is spread over, one unless given; one that
    needs fewer may pass it. On w devices a task takes a w-th of its `seconds`.
    """
    wide = widths or {}
    missing = {key: sum(need in tasks for need in task.after) for key, task in tasks.items()}
    behind: dict[str, list[str]] = {}
    for key, task in tasks.items():
        for need in task.after:
            behind.setdefault(need, []).append(key)
    place = {key: number for number, key in enumerate(tasks)}
    ready = {width: list[tuple[int, str]]() for width in {wide.get(key, 1) for key in tasks}}
    for key, waits in missing.items():
        if not waits:
            heapq.heappush(ready[wide.get(key, 1)], (place[key], key))
    running: list[tuple[float, str]] = []
    now, free = 0.0, devices
    while True:
        while fitting := [(queue[0], width) for width, queue in ready.items() if queue and width <= free]:
            (_, key), width = min(fitting)
            heapq.heappop(ready[width])
            heapq.heappush(running, (now + seconds[key] / width, key))
            free -= width
        if not running:
            return now
        now, ended = heapq.heappop(running)
        free += wide.get(ended, 1)
        for key in behind.get(ended, ()):
            missing[key] -= 1
            if not missing[key]:
                heapq.heappush(ready[wide.get(key, 1)], (place[key], key))


def storage(study: Study) -> Iterator[Storage]:
    """What the first seed's lineage of each case and policy takes, rows and models apart, where the family can say."""
    for arm in study.arms:
        costs = _costs_of(arm.case.family)
        if arm.seed != study.seeds[0] or costs is None:
            continue
        state, row_bytes, model_bytes = start(arm.lineage), 0.0, 0
        made = state.real.num_rows
        for turn in arm.turns:
            state, _ = advance(arm.lineage, state)
            model, fresh = costs(turn.model), costs(turn.fresh.step)
            if model is None or fresh is None:
                return
            made += turn.fresh.num_rows
            row_bytes = fresh.bytes / turn.fresh.num_rows if turn.fresh.num_rows else row_bytes
            model_bytes += model.bytes
        yield Storage(
            case=arm.case.name,
            policy=arm.policy,
            rows_made=made,
            rows_kept=unique_rows(state.pool),
            row_bytes=row_bytes,
            model_bytes=model_bytes,
        )


def task_seconds(
    plan: Plan, store: Workspace, costs: Mapping[str, Cost | None], *, flops: float | None, rates: Mapping[str, Mapping[str, float]]
) -> dict[str, float] | None:
    """The seconds of each pending task on one device; None where those of some kind are not known.

    From what steps of the same case and kind took in this workspace; else from the operations, where it is known how many a device
    does in a second: `rates[case][kind]`, or `flops` in any step.
    """
    before = measured(plan, store)
    found = {}
    for key, task in plan.pending.items():
        case = plan.study.arms[task.arms[0]].case.name
        kind = rated_as(task.kind)
        cost, rate = costs[key], rates.get(case, {}).get(kind, flops)
        if (case, kind) in before:
            found[key] = before[case, kind] * sum(todo(step) for step in task.steps(plan.study) if not store.has(step))
        elif cost is not None and (rate or (rates and not cost.flops)):
            found[key] = cost.flops / rate if rate else 0.0
        else:
            return None
    return found


def measured_rates(study: Study, *, seconds: float = 60.0) -> dict[str, dict[str, float]]:
    """FLOP/s of this machine by case and kind of step, measured in about `seconds` in all."""
    found = {}
    for case in study.cases:
        family: Family = catalogue.load(catalogue.families()[case.family])
        if family.calibrate:
            found[case.name] = catalogue.load(family.calibrate)(case, seconds=seconds / len(study.cases))
    return found


def _costs_of(family: str) -> Costs | None:
    if family not in catalogue.families():
        return None
    found: Family = catalogue.load(catalogue.families()[family])
    return catalogue.load(found.costs) if found.costs else None

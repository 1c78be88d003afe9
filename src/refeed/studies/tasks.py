"""Tasks: a study's steps as a graph, each distinct step once, grouped as an engine hands them out."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property

from refeed.core.devices import ONE, grant
from refeed.core.errors import Stopped, WorkspaceError
from refeed.core.memory import Memory
from refeed.core.recipes import join
from refeed.core.steps import Sample, Step
from refeed.studies import resources
from refeed.studies.study import Arm, Study
from refeed.workspace import Workspace
from refeed.workspace.records import Record

SEEDS_PER_TASK = 25


@dataclass(frozen=True, kw_only=True)
class Task:
    """One step; or, of a cheap family, the scores of whole lineages. Done after the tasks `after`.

    `arms`, `generation` and `number` say where in the study the step is found, so that a task is small to send.
    """

    key: str
    kind: str  # draw, fit, part, sample, alter, measure; or lineages
    arms: tuple[int, ...]
    generation: int = 0
    number: int = 0
    after: frozenset[str] = frozenset()

    def steps(self, study: Study) -> list[Step]:
        if self.kind == "lineages":
            return [score for arm in self.arms for turn in study.arms[arm].turns for score in turn.scores]
        return [study.arms[self.arms[0]].turns[self.generation - 1].steps[self.number]]


@dataclass(frozen=True, kw_only=True)
class Done:
    """How a task ended: the outcomes that stopped something, and by lineage the traceback of what raised."""

    stopped: list[Record] = field(default_factory=list)
    errors: dict[int, str] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return bool(self.stopped or self.errors)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every task of a study; `done` holds the keys of those that need not run, or that stand behind an outcome."""

    study: Study
    tasks: dict[str, Task]
    done: frozenset[str]
    counts: dict[str, tuple[int, int]]  # distinct steps by kind: in all, and still to do

    @cached_property
    def pending(self) -> dict[str, Task]:
        return {key: task for key, task in self.tasks.items() if key not in self.done}


def plan(study: Study, store: Workspace) -> Plan:
    """The graph of `study` and what of it the store has. Builds recipes; computes nothing."""
    tasks: dict[str, Task] = {}
    done: set[str] = set()
    steps: dict[str, tuple[str, bool]] = {}
    cheap: list[int] = []
    for number, arm in enumerate(study.arms):
        if arm.lineage.source.rebuilds:
            cheap.append(number)
            continue
        for task, step in _tasks(arm, number, store):
            if task.key not in tasks:
                tasks[task.key] = task
                steps[step.digest] = (step.kind, store.has(step))
                if steps[step.digest][1]:
                    done.add(task.key)
    for arms in _chunks(study, cheap):
        scores = [score for arm in arms for score in _reachable(study.arms[arm], store)]
        steps |= {score.digest: (score.kind, store.has(score)) for score in scores}
        ends = (study.arms[arm].turns[-1] for arm in arms)
        key = join("lineages", *(step.digest for turn in ends for step in (turn.model, *turn.scores)))
        task = Task(key=key, kind="lineages", arms=arms)
        tasks[task.key] = task
        if all(steps[score.digest][1] for score in scores):
            done.add(task.key)
    counts: dict[str, tuple[int, int]] = {}
    for kind, has in steps.values():
        total, left = counts.get(kind, (0, 0))
        counts[kind] = (total + 1, left + (not has))
    return Plan(study=study, tasks=tasks, done=frozenset(done), counts=counts)


def _tasks(arm: Arm, number: int, store: Workspace) -> Iterator[tuple[Task, Step]]:
    dead: set[str] = set()  # what was stopped by an outcome, and what stands behind it: never to be run
    for turn in arm.turns:
        for position, step in enumerate(turn.steps):
            parts = step.parts if isinstance(step, Sample) else ()
            after = frozenset(needed.digest for needed in (*step.inputs(), *parts))
            if dead & after:
                dead.add(step.digest)
                continue
            if store.outcome(step):
                dead.add(step.digest)
            place = {"generation": turn.generation, "number": position}
            yield Task(key=step.digest, kind=step.kind, arms=(number,), after=after, **place), step
        if turn.model.digest in dead:
            return


def _reachable(arm: Arm, store: Workspace) -> Iterator[Step]:
    """The scores of a cheap lineage, up to the one that stopped it."""
    for turn in arm.turns:
        for score in turn.scores:
            yield score
            if store.outcome(score):
                return


def _chunks(study: Study, numbers: list[int]) -> Iterator[tuple[int, ...]]:
    """Lineages of one case and some dozen seeds, by their place in the study and not by what is done, so that chunks are stable."""
    groups: dict[tuple[str, int], list[int]] = {}
    place = {seed: position for position, seed in enumerate(study.seeds)}
    for number in numbers:
        arm = study.arms[number]
        groups.setdefault((arm.case.name, place[arm.seed] // SEEDS_PER_TASK), []).append(number)
    return (tuple(group) for group in groups.values())


def perform(task: Task, study: Study, store: Workspace) -> Done:
    """Do `task`. Everything it made is in the store when this returns; what a plug-in raised is returned, not raised."""
    if task.kind == "lineages":
        return _perform_lineages(task, study, store)
    (step,) = task.steps(study)
    granted = resources.of(study.resources, task.kind).granted if task.kind == "fit" else ONE
    try:
        with grant(granted):
            store.realise(step)
    except Stopped as stop:
        return Done(stopped=[_outcome(step, stop, 0.0)])
    except WorkspaceError:
        raise
    except (Exception, SystemExit):
        return Done(errors={task.arms[0]: traceback.format_exc()})
    return Done()


def _perform_lineages(task: Task, study: Study, store: Workspace) -> Done:
    arms = {number: study.arms[number] for number in task.arms}
    errors: dict[int, str] = {}
    records: list[Record] = []
    with ExitStack() as locks:
        # A lock a lineage, taken in one order everywhere: other processes wait, then find the lineages done.
        for digest in sorted({arm.turns[-1].model.digest for arm in arms.values()}):
            locks.enter_context(store.locks.hold(digest))
        store.refresh()
        for number, arm in arms.items():
            try:
                records.extend(_lineage(arm, store))
            except (Exception, SystemExit):
                errors[number] = traceback.format_exc()
        store.record(records)
    return Done(stopped=[record for record in records if record.outcome is not None], errors=errors)


def _lineage(arm: Arm, store: Workspace) -> Iterator[Record]:
    memory = Memory()
    for score in _reachable(arm, store):
        if store.has(score):
            continue
        started = time.perf_counter()
        try:
            values = memory.realise(score)
        except Stopped as stop:
            yield _outcome(score, stop, time.perf_counter() - started)
            return
        yield Record(digest=score.digest, kind=score.kind, seconds=time.perf_counter() - started, values=values)


def _outcome(step: Step, stop: Stopped, seconds: float) -> Record:
    return Record(digest=step.digest, kind=step.kind, seconds=seconds, outcome=stop.outcome, sentence=stop.sentence)

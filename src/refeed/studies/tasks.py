"""Tasks: a study's steps as a graph, each distinct step once, grouped as an engine hands them out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from refeed.core.errors import Stopped
from refeed.core.memory import Memory
from refeed.core.recipes import join
from refeed.core.steps import Draw, Step
from refeed.studies.study import Arm, Study
from refeed.workspace import Workspace
from refeed.workspace.records import Record

LINEAGES_PER_TASK = 50


@dataclass(frozen=True, kw_only=True)
class Task:
    """Some steps that are done in one go, after the tasks `after`. `arms` says where in the study to find them."""

    key: str
    kind: str  # draw, fit, sample, measure; or lineages: whole lineages of a cheap family
    arms: tuple[int, ...]
    generation: int = 0
    after: frozenset[str] = frozenset()

    def steps(self, study: Study) -> list[Step]:
        """The steps that this task is to realise (of a `lineages` task: the scores)."""
        return [step for arm in self.arms for step in _steps(study.arms[arm], self.kind, self.generation)]


def _steps(arm: Arm, kind: str, generation: int) -> Iterator[Step]:
    if kind == "draw":
        yield arm.lineage.draw
    elif kind == "lineages":
        for turn in arm.turns:
            yield from turn.scores
    else:
        turn = arm.turns[generation - 1]
        yield from {"fit": (turn.model,), "sample": (turn.fresh.step,), "measure": turn.scores}[kind]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every task of a study; `done` holds the keys of those that need not run."""

    study: Study
    tasks: dict[str, Task]
    done: frozenset[str]

    @property
    def pending(self) -> dict[str, Task]:
        return {key: task for key, task in self.tasks.items() if key not in self.done}

    @cached_property
    def counts(self) -> dict[str, tuple[int, int]]:
        """Steps by kind: (in all, still to do)."""
        counts: dict[str, tuple[int, int]] = {}
        for key, task in self.tasks.items():
            size = len(task.steps(self.study))
            kind = "measure" if task.kind == "lineages" else task.kind
            total, left = counts.get(kind, (0, 0))
            counts[kind] = (total + size, left + (0 if key in self.done else size))
        return counts


def plan(study: Study, store: Workspace) -> Plan:
    """The graph of `study` and what of it the store has. Builds recipes; computes nothing."""
    tasks: dict[str, Task] = {}
    done: set[str] = set()
    cheap: list[int] = []
    for number, arm in enumerate(study.arms):
        if arm.lineage.source.rebuilds:
            cheap.append(number)
            continue
        for task, steps in _tasks(arm, number):
            tasks.setdefault(task.key, task)
            if all(store.has(step) for step in steps):
                done.add(task.key)
    for task, complete in _cheap_tasks(study, cheap, store):
        tasks[task.key] = task
        if complete:
            done.add(task.key)
    return Plan(study=study, tasks=tasks, done=frozenset(done))


def _tasks(arm: Arm, number: int) -> Iterator[tuple[Task, list[Step]]]:
    draw = arm.lineage.draw
    yield Task(key=draw.digest, kind="draw", arms=(number,)), [draw]
    for turn in arm.turns:
        here: dict[str, Any] = {"arms": (number,), "generation": turn.generation}
        model, fresh = turn.model, turn.fresh.step
        # Further real rows (`State.more_real`) are drawn by whoever needs them first.
        needed = (s for s in model.inputs() if s is draw or not isinstance(s, Draw))
        yield Task(key=model.digest, kind="fit", after=frozenset(s.digest for s in needed), **here), [model]
        yield Task(key=fresh.digest, kind="sample", after=frozenset({model.digest}), **here), [fresh]
        if turn.scores:
            inputs = frozenset(s.digest for score in turn.scores for s in score.inputs())
            key = join("measures", *(score.digest for score in turn.scores))
            yield Task(key=key, kind="measure", after=inputs, **here), list(turn.scores)


def _cheap_tasks(study: Study, numbers: list[int], store: Workspace) -> Iterator[tuple[Task, bool]]:
    """Whole lineages, some dozens to a task; those that are done and those that are not apart."""
    for complete in (True, False):
        chosen = [n for n in numbers if all(store.has(s) for t in study.arms[n].turns for s in t.scores) == complete]
        for start in range(0, len(chosen), LINEAGES_PER_TASK):
            arms = tuple(chosen[start : start + LINEAGES_PER_TASK])
            key = join("lineages", *(study.arms[n].turns[-1].model.digest for n in arms))
            yield Task(key=key, kind="lineages", arms=arms), complete


def perform(task: Task, study: Study, store: Workspace) -> list[Record]:
    """Do `task`; returns the outcomes that stopped something, if any. Everything it made is in the store when this returns."""
    if task.kind == "lineages":
        return _perform_lineages(task, study, store)
    stopped = []
    for step in task.steps(study):
        try:
            store.realise(step)
        except Stopped as stop:
            stopped.append(_outcome(step, stop, 0.0))
    return stopped


def _perform_lineages(task: Task, study: Study, store: Workspace) -> list[Record]:
    # The lock keeps two processes from doing the same lineages; the second finds them done.
    with store.locks.hold(task.key):
        store.refresh()
        records = [record for arm in task.arms for record in _lineage(study.arms[arm], store)]
        store.record(records)
    return [record for record in records if record.outcome is not None]


def _lineage(arm: Arm, store: Workspace) -> Iterator[Record]:
    memory = Memory()
    for turn in arm.turns:
        for score in turn.scores:
            if store.has(score):
                continue
            started = time.perf_counter()
            try:
                values = memory.realise(score)
            except Stopped as stop:
                yield _outcome(score, stop, time.perf_counter() - started)
            else:
                seconds = time.perf_counter() - started
                yield Record(digest=score.digest, kind=score.kind, seconds=seconds, values=values)


def _outcome(step: Step, stop: Stopped, seconds: float) -> Record:
    return Record(digest=step.digest, kind=step.kind, seconds=seconds, outcome=stop.outcome, sentence=stop.sentence)

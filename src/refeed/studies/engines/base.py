"""What every engine shares: its interface, the events it tells, the order of tasks, and one task done."""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, ClassVar, Protocol

from refeed.core import progress
from refeed.core.errors import StepFailed, StudyError
from refeed.studies.resources import refuse_without_devices
from refeed.studies.study import Study
from refeed.studies.tasks import Done, Plan, Task, perform
from refeed.workspace import Workspace

MAX_RETRIES = 2


@dataclass(frozen=True, kw_only=True)
class Event:
    """What an engine tells while it works: a task started, ticks inside it, or it ended."""

    kind: str  # started | tick | ended
    task: Task
    done: float = 0.0
    total: float = 0.0
    unit: str = ""
    note: str = ""
    seconds: float = 0.0
    result: Done = field(default_factory=Done)


Listener = Callable[[Event], None]


def refuse_what_is_not_here(plan: Plan) -> None:
    """One error, before any step, where a study asks for what this machine does not have; none where nothing is to do."""
    if not plan.pending:
        return
    refuse_without_devices(plan.study.resources)
    for case in plan.study.cases:
        if check := getattr(case.sampler, "check_machine", None):
            check()


class Engine(Protocol):
    """Performs every pending task of the plan, each after those it needs; tasks behind a failed one are left out.

    A frozen dataclass of options, `name` among the class variables. It says `started` and `ended` of every task that it performs.
    What cannot work (no such cluster, a workspace that workers do not see, more devices than there are) it refuses before the
    first task. Everything that was done is in the workspace when it returns or raises, however it ends.
    """

    name: ClassVar[str]

    def __call__(self, plan: Plan, workspace: Workspace, listener: Listener) -> None: ...


class Queue:
    """Which tasks are ready: all they need is done. Those behind a failed task never become ready and are dropped."""

    def __init__(self, plan: Plan) -> None:
        self._tasks = list(plan.pending.values())
        self._missing = [len(task.after - plan.done) for task in self._tasks]
        self._behind: dict[str, list[int]] = {}
        for place, task in enumerate(self._tasks):
            for key in task.after:
                self._behind.setdefault(key, []).append(place)
        self._ready = [place for place, missing in enumerate(self._missing) if not missing]  # sorted, hence a heap
        self._num_running = 0

    @property
    def unfinished(self) -> bool:
        return bool(self._ready or self._num_running)

    def next(self) -> Task | None:
        """The first ready task of the plan's order, or None for now."""
        if not self._ready:
            return None
        self._num_running += 1
        return self._tasks[heappop(self._ready)]

    def ended(self, task: Task, *, failed: bool) -> None:
        self._num_running -= 1
        for place in () if failed else self._behind.get(task.key, ()):
            self._missing[place] -= 1
            if not self._missing[place]:
                heappush(self._ready, place)


def perform_and_tell(task: Task, study: Study, workspace: Workspace, listener: Listener) -> Event:
    """Do `task`, telling its ticks to `listener`; returns the event of its end."""
    started = time.perf_counter()

    def tick(done: float, total: float, unit: str, note: str) -> None:
        listener(Event(kind="tick", task=task, done=done, total=total, unit=unit, note=note))

    with progress.listen(tick):
        result = perform(task, study, workspace)
    return Event(kind="ended", task=task, seconds=time.perf_counter() - started, result=result)


def given_up(task: Task, error: str) -> Event:
    """The end of a task that its engine could not get done."""
    return Event(kind="ended", task=task, result=Done(errors={task.arms[0]: error}))


class Sparing:
    """Passes on at most four ticks a second, and every other event."""

    def __init__(self, send: Listener) -> None:
        self._send = send
        self._last = 0.0

    def __call__(self, event: Event) -> None:
        now = time.monotonic()
        if event.kind != "tick" or now - self._last > 0.25:
            self._last = now
            self._send(event)


def portable(study: Study, dumps: Callable[[Any], bytes] = pickle.dumps) -> bytes:
    """The study as it is sent to workers, and where its classes are found; refused here, with the reason, rather than in each."""
    try:
        return pickle.dumps((sys.path, dumps(study)))
    except Exception as error:
        raise StudyError(f"this study cannot be sent to worker processes: {error}.", hint="Use --engine inline.") from None


def unpacked(sent: bytes) -> Study:
    """In a worker: the study that `portable` sent; `StepFailed` where its classes are not found."""
    try:
        places, study = pickle.loads(sent)
        sys.path.extend(place for place in places if place not in sys.path)
        loaded: Study = pickle.loads(study)
    except Exception as error:
        hint = "Classes of your own must stand in a module that workers can import. Or use --engine inline."
        raise StepFailed(f"a worker process cannot load the study: {error}.", hint=hint) from None
    return loaded


@contextmanager
def environment_variables(variables: dict[str, str]) -> Iterator[None]:
    """Inside the block, processes that are started find these variables."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)

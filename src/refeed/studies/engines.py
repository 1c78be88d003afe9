"""Engines: who performs the tasks of a plan. An engine is a function; the study does not know which one it got."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from queue import Empty
from typing import Any, Protocol

from refeed.core import progress
from refeed.core.errors import StepFailed, StudyError
from refeed.studies.study import Study
from refeed.studies.tasks import Done, Plan, Task, perform
from refeed.workspace import Workspace

MAX_RETRIES = 2
WHY_IT_DIED = "the system may be out of memory, or the script that started it lacks `if __name__ == '__main__':`"
OF_YOUR_OWN = "Classes of your own must stand in a module that workers can import, not in a notebook. Or use --engine inline."
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class Event:
    """What an engine tells while it works: a task started, ticks inside it, or it ended."""

    kind: str  # started | tick | ended
    task: Task
    done: float = 0.0
    total: float = 0.0
    unit: str = ""
    seconds: float = 0.0
    result: Done = field(default_factory=Done)


Listener = Callable[[Event], None]


class Engine(Protocol):
    """Performs every pending task of the plan, each after those it needs; tasks behind a failed one are left out."""

    def __call__(self, plan: Plan, workspace: Workspace, listener: Listener) -> None: ...


def inline(plan: Plan, workspace: Workspace, listener: Listener) -> None:
    """One task after the other in this process, so that a debugger works."""
    queue = _Queue(plan)
    while (task := queue.next()) is not None:
        event = _perform(task, plan.study, workspace, listener)
        queue.ended(task, failed=event.result.failed)
        listener(event)


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Independent tasks in `workers` spawned processes of one thread each.

    When a worker dies, the tasks that were running are tried again one at a time, so that the blame falls on the right one; one
    that kills its worker again and again ends as failed, and the others go on.
    """

    workers: int = 2

    def __call__(self, plan: Plan, workspace: Workspace, listener: Listener) -> None:
        study = _portable(plan.study)
        with _one_thread():  # read by each worker's numerical libraries when it starts
            _Drive(self.workers, plan, workspace, listener, study).run()


class _Drive:
    """One run of `Processes`: the queue, the pool, and who is suspected of killing workers."""

    def __init__(self, workers: int, plan: Plan, workspace: Workspace, listener: Listener, study: bytes) -> None:
        self.workers, self.workspace, self.listener, self.study = workers, workspace, listener, study
        self.queue = _Queue(plan)
        self.context = get_context("spawn")
        self.ticks = self.context.Queue()
        self.suspects: list[Task] = []
        self.attempts: dict[str, int] = {}
        self.running: dict[Future[Event], Task] = {}

    def run(self) -> None:
        while self.queue.unfinished or self.suspects:
            arguments = (str(self.workspace.path), self.study, self.ticks)
            pool = ProcessPoolExecutor(self.workers, mp_context=self.context, initializer=_start_worker, initargs=arguments)
            try:
                self._drain(pool)
            except BrokenProcessPool:
                self._suspect()
            except BaseException:
                _kill(pool)
                raise
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _drain(self, pool: ProcessPoolExecutor) -> None:
        while True:
            while self.suspects and not self.running:
                self._submit(pool, self.suspects.pop())
            while not self.suspects and len(self.running) < self.workers and (task := self.queue.next()) is not None:
                self._submit(pool, task)
            if not self.running:
                return
            finished, _ = wait(self.running, timeout=0.2, return_when=FIRST_COMPLETED)
            for event in _received(self.ticks):
                self.listener(event)
            for future in finished:
                event = future.result()  # raises BrokenProcessPool while the task is still listed as running
                self._ended(self.running.pop(future), event)

    def _submit(self, pool: ProcessPoolExecutor, task: Task) -> None:
        try:
            with _uninterrupted():  # a worker that starts here inherits the mask
                self.running[pool.submit(_work, task)] = task
        except BrokenProcessPool:
            self.suspects.append(task)
            raise
        self.listener(Event(kind="started", task=task))

    def _suspect(self) -> None:
        alone = len(self.running) == 1
        for task in self.running.values():
            self.attempts[task.key] = self.attempts.get(task.key, 0) + alone
            if self.attempts[task.key] > MAX_RETRIES:
                error = f"the worker process died {self.attempts[task.key]} times, alone with this step; {WHY_IT_DIED}"
                self._ended(task, Event(kind="ended", task=task, result=Done(errors={task.arms[0]: error})))
            else:
                self.suspects.append(task)
        self.running.clear()

    def _ended(self, task: Task, event: Event) -> None:
        self.queue.ended(task, failed=event.result.failed)
        self.listener(event)


class _Queue:
    """Which tasks are ready: all they need is done. Those behind a failed task never become ready and are dropped."""

    def __init__(self, plan: Plan) -> None:
        self._waiting = dict(plan.pending)
        self._done = set(plan.done)
        self._running: set[str] = set()

    @property
    def unfinished(self) -> bool:
        return bool(self._waiting or self._running)

    def next(self) -> Task | None:
        for key, task in self._waiting.items():
            if task.after <= self._done:
                del self._waiting[key]
                self._running.add(key)
                return task
        if not self._running:
            self._waiting.clear()  # what is left stands behind a failure
        return None

    def ended(self, task: Task, *, failed: bool) -> None:
        self._running.discard(task.key)
        if not failed:
            self._done.add(task.key)


def _perform(task: Task, study: Study, workspace: Workspace, listener: Listener) -> Event:
    started = time.perf_counter()

    def tick(done: float, total: float, unit: str) -> None:
        listener(Event(kind="tick", task=task, done=done, total=total, unit=unit))

    with progress.listen(tick):
        result = perform(task, study, workspace)
    return Event(kind="ended", task=task, seconds=time.perf_counter() - started, result=result)


def _portable(study: Study) -> bytes:
    """The study as it is sent to workers; refused here, with the reason, rather than in each of them."""
    try:
        return pickle.dumps(study)
    except Exception as error:
        raise StudyError(f"this study cannot be sent to worker processes: {error}.", hint="Use --engine inline.") from None


# Inside a worker process ------------------------------------------------------------------------------------------------------

_worker: dict[str, Any] = {}


def _start_worker(path: str, study: bytes, ticks: Any) -> None:
    threading.Thread(target=_end_with_driver, daemon=True).start()
    try:
        _worker.update(workspace=Workspace(Path(path)), study=pickle.loads(study), ticks=ticks, last=0.0)
    except Exception as error:  # a worker that fails to start would be taken for one that was killed
        _worker["broken"] = error


def _end_with_driver() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)  # the driver was killed; whoever resumes finds every finished step


def _work(task: Task) -> Event:
    def send(event: Event) -> None:
        now = time.monotonic()
        if event.kind == "tick" and now - _worker["last"] > 0.25:
            _worker["last"] = now
            _worker["ticks"].put(event)

    if "broken" in _worker:
        raise StepFailed(f"a worker process cannot load the study: {_worker['broken']}.", hint=OF_YOUR_OWN)
    return _perform(task, _worker["study"], _worker["workspace"], send)


def _received(ticks: Any) -> Iterator[Event]:
    while True:
        try:
            yield ticks.get_nowait()
        except Empty:
            return


@contextmanager
def _one_thread() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C is for the driver, which ends its workers: it waits until the block is left, and never reaches a worker."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill(pool: ProcessPoolExecutor) -> None:
    """End the workers now: every step is written whole or not at all, so nothing is lost."""
    for process in list((pool._processes or {}).values()):
        process.kill()

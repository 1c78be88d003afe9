"""Engines: who performs the tasks of a plan. An engine is a function; the study does not know which one it got."""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
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
from refeed.core.errors import RefeedError, StepFailed
from refeed.studies.study import Study
from refeed.studies.tasks import Plan, Task, perform
from refeed.workspace import Workspace
from refeed.workspace.records import Record

MAX_RETRIES = 2
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
    stopped: list[Record] = field(default_factory=list)
    error: str | None = None


Listener = Callable[[Event], None]


class Engine(Protocol):
    """Performs every pending task of the plan, each after those it needs; tasks behind a failed one are left out."""

    def __call__(self, plan: Plan, workspace: Workspace, listener: Listener) -> None: ...


def inline(plan: Plan, workspace: Workspace, listener: Listener) -> None:
    """One task after the other in this process, so that a debugger works."""
    queue = _Queue(plan)
    while (task := queue.next()) is not None:
        event = _perform(task, plan.study, workspace, listener)
        queue.ended(task, failed=event.error is not None or bool(event.stopped))
        listener(event)


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Independent tasks in `workers` spawned processes of one thread each. A killed worker's task is tried again."""

    workers: int = 2

    def __call__(self, plan: Plan, workspace: Workspace, listener: Listener) -> None:
        context = get_context("spawn")
        os.environ.update(dict.fromkeys(THREADS, "1"))  # read by each worker's numerical libraries when it starts
        queue, ticks = _Queue(plan), context.Queue()
        attempts: dict[str, int] = {}
        while queue.unfinished:
            pool = ProcessPoolExecutor(
                self.workers,
                mp_context=context,
                initializer=_start_worker,
                initargs=(str(workspace.path), plan.study, ticks),
            )
            running: dict[Future[Event], Task] = {}
            try:
                self._drain(pool, queue, running, ticks, plan, listener)
            except BrokenProcessPool:
                for task in running.values():
                    attempts[task.key] = attempts.get(task.key, 0) + 1
                    if attempts[task.key] > MAX_RETRIES:
                        raise StepFailed(
                            f"a worker process died {attempts[task.key]} times while doing the {task.kind} step {task.key}.",
                            hint="The system may be out of memory. Try --workers 1, or --engine inline to see the error.",
                        ) from None
                    queue.again(task)
            except BaseException:
                _kill(pool)
                raise
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _drain(
        self,
        pool: ProcessPoolExecutor,
        queue: _Queue,
        running: dict[Future[Event], Task],
        ticks: Any,
        plan: Plan,
        listener: Listener,
    ) -> None:
        while True:
            while len(running) < self.workers and (task := queue.next()) is not None:
                try:
                    with _uninterrupted():  # a worker that starts here inherits the mask
                        running[pool.submit(_work, task)] = task
                except BrokenProcessPool:
                    queue.again(task)
                    raise
                listener(Event(kind="started", task=task))
            if not running:
                return
            finished, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            for event in _received(ticks):
                listener(event)
            for future in finished:
                event = future.result()  # raises BrokenProcessPool while the task is still listed as running
                task = running.pop(future)
                queue.ended(task, failed=event.error is not None or bool(event.stopped))
                listener(event)


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

    def again(self, task: Task) -> None:
        self._running.discard(task.key)
        self._waiting = {task.key: task} | self._waiting


def _perform(task: Task, study: Study, workspace: Workspace, listener: Listener) -> Event:
    started = time.perf_counter()

    def tick(done: float, total: float, unit: str) -> None:
        listener(Event(kind="tick", task=task, done=done, total=total, unit=unit))

    error, stopped = None, []
    try:
        with progress.listen(tick):
            stopped = perform(task, study, workspace)
    except RefeedError:
        raise
    except Exception:
        error = traceback.format_exc()
    return Event(kind="ended", task=task, seconds=time.perf_counter() - started, stopped=stopped, error=error)


# Inside a worker process ------------------------------------------------------------------------------------------------------

_worker: dict[str, Any] = {}


def _start_worker(path: str, study: Study, ticks: Any) -> None:
    threading.Thread(target=_end_with_driver, daemon=True).start()
    _worker.update(workspace=Workspace(Path(path)), study=study, ticks=ticks, last=0.0)


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

    return _perform(task, _worker["study"], _worker["workspace"], send)


def _received(ticks: Any) -> Iterator[Event]:
    while True:
        try:
            yield ticks.get_nowait()
        except Empty:
            return


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

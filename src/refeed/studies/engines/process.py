"""Independent tasks in processes of this machine."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from queue import Empty
from typing import Any, ClassVar

from refeed.core.devices import threads
from refeed.core.errors import StudyError
from refeed.studies.engines.base import (
    MAX_RETRIES,
    Event,
    Listener,
    Queue,
    Sparing,
    environment_variables,
    given_up,
    perform_and_tell,
    portable,
    refuse_what_is_not_here,
    unpacked,
)
from refeed.studies.tasks import Plan, Task
from refeed.workspace import Workspace, open_workspace

WHY_IT_DIED = "the system may be out of memory, or the script that started it lacks `if __name__ == '__main__':`"


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Independent tasks in `workers` spawned processes of one thread each.

    When a worker dies, the tasks that were running are tried again one at a time, so that the blame falls on the right one; one
    that kills its worker again and again ends as failed, and the others go on.
    """

    workers: int = 2
    name: ClassVar[str] = "process"

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise StudyError(f"at least one worker is needed, not {self.workers}.")

    def __call__(self, plan: Plan, workspace: Workspace, listener: Listener) -> None:
        for kind, asked in plan.study.resources.items():
            if asked.gpus:
                message = f"resources.{kind} asks for GPUs, which the engine process does not hand out to its workers."
                raise StudyError(message, hint="Type: --engine inline, or --engine ray")
        refuse_what_is_not_here(plan)
        study = portable(plan.study)
        with environment_variables(threads(1)):  # read by each worker's numerical libraries when it starts
            _Drive(self.workers, plan, workspace, listener, study).run()


class _Drive:
    """One run of `Processes`: the queue, the pool, and who is suspected of killing workers."""

    def __init__(self, workers: int, plan: Plan, workspace: Workspace, listener: Listener, study: bytes) -> None:
        self.workers, self.workspace, self.listener, self.study = workers, workspace, listener, study
        self.queue = Queue(plan)
        self.context = get_context("spawn")
        self.ticks = self.context.Queue()
        self.suspects: list[Task] = []
        self.attempts: dict[str, int] = {}
        self.running: dict[Future[Event], Task] = {}

    def run(self) -> None:
        while self.queue.unfinished or self.suspects:
            arguments = (self.workspace.address, self.study, self.ticks)
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
                self._ended(task, given_up(task, error))
            else:
                self.suspects.append(task)
        self.running.clear()

    def _ended(self, task: Task, event: Event) -> None:
        self.queue.ended(task, failed=event.result.failed)
        self.listener(event)


# Inside a worker process ------------------------------------------------------------------------------------------------------

_worker: dict[str, Any] = {}


def _start_worker(address: str, study: bytes, ticks: Any) -> None:
    threading.Thread(target=_end_with_driver, daemon=True).start()
    try:
        _worker.update(workspace=open_workspace(address), study=unpacked(study), ticks=ticks)
    except Exception as error:  # a worker that fails to start would be taken for one that was killed
        _worker["broken"] = error


def _end_with_driver() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)  # the driver was killed; whoever resumes finds every finished step


def _work(task: Task) -> Event:
    if "broken" in _worker:
        raise _worker["broken"]
    return perform_and_tell(task, _worker["study"], _worker["workspace"], Sparing(_worker["ticks"].put))


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

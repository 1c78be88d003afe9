"""Steps as tasks of a Ray cluster: one that is there, or a small one of this machine."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from refeed.core.devices import threads
from refeed.core.errors import EngineError, RefeedError, StepFailed
from refeed.studies import resources
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
    unpacked,
)
from refeed.studies.engines.elsewhere import Probe, answered, look, probing
from refeed.studies.resources import Resources
from refeed.studies.tasks import Plan, Task
from refeed.workspace import Workspace, open_workspace

MAX_LOST_NODES = 20  # how often one step may be on a machine that is lost
SPARE_TASKS = 8  # how many more than can run are handed to Ray, so that no machine waits for the driver
REACHABLE_SECONDS = 5.0
LOOK_SECONDS, QUIET_LOOKS = 0.25, 40
# A cluster that is started here has all of this machine: by default its workers would take only what other processes leave.
OF_OUR_OWN = {"RAY_worker_niceness": "0"}
LOCAL = {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1", "object_store_memory": 128 * 2**20}
WHY_IT_DIED = "the machine may be out of memory"


@dataclass(frozen=True, kw_only=True)
class Ray:
    """Tasks of a Ray cluster, each with the processors and GPUs that its step asks for.

    `address`: a running cluster, as host:port, or "auto" for one that this machine is part of; the environment variable
    RAY_ADDRESS if it is left out; a cluster of this machine alone, for as long as the run lasts, if that is not set either.
    `workers`: at most so many steps at a time; of a cluster of this machine alone, its processors.

    A step whose worker dies is tried again, twice; one whose machine is lost, elsewhere. The driver may die: what was finished is
    in the workspace, and running the same command again goes on from there.
    """

    address: str | None = None
    workers: int | None = None
    name: ClassVar[str] = "ray"
    extra: ClassVar[str] = "ray"
    requires: ClassVar[tuple[str, ...]] = ("ray",)

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise EngineError(f"at least one worker is needed, not {self.workers}.")

    def __call__(self, plan: Plan, workspace: Workspace, listener: Listener) -> None:
        if not plan.pending:
            return
        with self._connected() as ray, probing(workspace) as probe:
            asked = {kind: resources.of(plan.study.resources, kind) for kind in {task.kind for task in plan.pending.values()}}
            _refuse_unfit(ray, asked)
            packed = portable(plan.study, ray.cloudpickle.dumps)  # which sends classes of scripts and notebooks too
            study = [ray.put(packed)]  # in a list, so that a worker fetches it once and not with every task
            _ready_every_node(ray, probe, study, most=min(len(plan.pending), self.workers or len(plan.pending)))
            _Drive(ray, plan, listener, study, probe, asked, self.workers).run()

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        """Ray, connected; a connection that was there before stays."""
        with environment_variables({"RAY_USAGE_STATS_ENABLED": "0"} | OF_OUR_OWN):
            import ray

            if ray.is_initialized():
                yield ray
                return
            address = self.address or os.environ.get("RAY_ADDRESS")
            options = {"log_to_driver": False, "configure_logging": False}
            logging.getLogger("ray").setLevel(logging.ERROR)
            heard: list[str] = []
            try:
                if address in (None, "local"):
                    ray.init(**LOCAL, **options, num_cpus=self.workers or os.cpu_count())
                else:
                    _refuse_unreachable(str(address))
                    with _overheard(heard):
                        ray.init(address=address, **options)
            except (OSError, RuntimeError, ValueError) as error:  # refused, in vain, no such host, no such spelling
                reason = str(error).strip().splitlines()[0].rstrip(".")
                if any("AuthToken" in line for line in heard):
                    raise EngineError(
                        f"the Ray cluster at {address} asks for a token, and this machine sends none or another.",
                        hint="Type RAY_AUTH_MODE=token before the command, with the cluster's ~/.ray/auth_token on this machine.",
                    ) from None
                raise EngineError(
                    f"cannot connect to the Ray cluster at {address or 'this machine'}: {reason}.",
                    hint="Type: --set ray.address=HOST:PORT, or leave it out and unset RAY_ADDRESS, for a cluster of this machine.",
                ) from None
            try:
                yield ray
            finally:
                ray.shutdown()


class _Drive:
    """One run: what is handed to Ray, and how often each step was lost."""

    def __init__(
        self,
        ray: Any,
        plan: Plan,
        listener: Listener,
        study: list[Any],
        probe: Probe,
        asked: dict[str, Resources],
        workers: int | None,
    ) -> None:
        self.ray, self.listener, self.study, self.probe, self.asked = ray, listener, study, probe, asked
        self.queue = Queue(plan)
        self.work = {kind: ray.remote(_work).options(name=f"refeed {kind}", **_options(need)) for kind, need in asked.items()}
        self.ticks = ray.remote(num_cpus=0)(_Ticks).options(scheduling_strategy=_node(ray, here(ray), soft=True)).remote()
        self.news: Any = None
        self.most = workers or int(ray.cluster_resources().get("CPU", 1)) + SPARE_TASKS
        self.again: list[Task] = []
        self.deaths: dict[str, int] = {}
        self.losses: dict[str, int] = {}
        self.running: dict[Any, Task] = {}
        self.quiet = 0
        self.heard = 0.0

    def run(self) -> None:
        try:
            while self.queue.unfinished:
                self._hand_out()
                waiting = list(self.running)
                self.ray.wait(waiting, timeout=LOOK_SECONDS)
                ended, _ = self.ray.wait(waiting, num_returns=len(waiting), timeout=0)
                self._hear()
                for reference in ended:
                    self._collect(reference, self.running.pop(reference))
                self._refuse_stranded(idle=not ended)
        finally:
            for reference in self.running:
                self.ray.cancel(reference, force=True)
            self.ray.kill(self.ticks)

    def _hand_out(self) -> None:
        while len(self.running) < self.most and (task := self.again.pop() if self.again else self.queue.next()) is not None:
            if not self.losses.get(task.key) and not self.deaths.get(task.key):
                self.listener(Event(kind="started", task=task))
            self.running[self.work[task.kind].remote(task, self.probe, self.study, self.ticks)] = task

    def _collect(self, reference: Any, task: Task) -> None:
        from ray import exceptions

        try:
            event = self.ray.get(reference)
        except exceptions.NodeDiedError:
            self.losses[task.key] = self.losses.get(task.key, 0) + 1
            self._retry(task, self.losses[task.key] <= MAX_LOST_NODES, f"its machine was lost {self.losses[task.key]} times")
        except (exceptions.WorkerCrashedError, exceptions.OutOfMemoryError, exceptions.LocalRayletDiedError):
            self.deaths[task.key] = self.deaths.get(task.key, 0) + 1
            why = f"the worker process died {self.deaths[task.key]} times with this step; {WHY_IT_DIED}"
            self._retry(task, self.deaths[task.key] <= MAX_RETRIES, why)
        except exceptions.RayTaskError as error:
            raise StepFailed(f"a worker process failed: {str(error).strip().splitlines()[-1]}.") from None
        else:
            if isinstance(event, RefeedError):
                raise event
            self._ended(task, event)

    def _refuse_stranded(self, *, idle: bool) -> None:
        """Once in ten quiet seconds: are there still machines for what waits?"""
        self.quiet = self.quiet + 1 if idle else 0
        if self.quiet and self.quiet % QUIET_LOOKS == 0:
            _refuse_unfit(self.ray, {task.kind: self.asked[task.kind] for task in self.running.values()})

    def _retry(self, task: Task, once_more: bool, why: str) -> None:
        if once_more:
            self.again.append(task)
        else:
            self._ended(task, given_up(task, why))

    def _ended(self, task: Task, event: Event) -> None:
        self.queue.ended(task, failed=event.result.failed)
        self.listener(event)

    def _hear(self) -> None:
        """What workers told since, a few times a second, if it is there: nobody waits for it."""
        from ray.exceptions import RayActorError

        if self.news is None:
            if time.monotonic() - self.heard > LOOK_SECONDS:
                self.news, self.heard = self.ticks.take.remote(), time.monotonic()
        elif self.ray.wait([self.news], timeout=0)[0]:
            reference, self.news = self.news, None
            try:
                for event in self.ray.get(reference):
                    self.listener(event)
            except RayActorError:
                self.news = reference  # its machine was lost: there are no ticks any more, and the steps go on


@contextmanager
def _overheard(heard: list[str]) -> Iterator[None]:
    """What the block writes to standard error goes to `heard`: Ray's core writes a line a second while a cluster turns it away."""
    with tempfile.TemporaryFile("w+", errors="replace") as file:
        before = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            heard.extend(file)


def here(ray: Any) -> str:
    """The node that the driver is on."""
    return str(ray.get_runtime_context().get_node_id())


def _node(ray: Any, identity: str, *, soft: bool) -> Any:
    return ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(identity, soft=soft)


def _options(need: Resources) -> dict[str, Any]:
    """What Ray is told of a task."""
    return {"num_cpus": need.processors, "num_gpus": need.gpus, "max_retries": 0, "runtime_env": {"env_vars": threads(need.cpus)}}


def _refuse_unreachable(address: str) -> None:
    """Ray itself would try for a minute."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACHABLE_SECONDS).close()


def _refuse_unfit(ray: Any, asked: dict[str, Resources]) -> None:
    """A step that no single machine of the cluster could take would wait for ever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for kind, need in asked.items():
        if not any(node.get("CPU", 0) >= need.processors and node.get("GPU", 0) >= need.gpus for node in nodes):
            cpus, gpus = (max((node.get(name, 0) for node in nodes), default=0) for name in ("CPU", "GPU"))
            raise EngineError(
                f"a {kind} step asks for {need.described}, which no machine of the Ray cluster has "
                f"(the largest: {cpus:g} processors, {gpus:g} GPUs).",
                hint=f"Type: --set resources.{kind}.gpus={gpus:g} --set resources.{kind}.cpus=1, or start machines that have them.",
            )


def _ready_every_node(ray: Any, probe: Probe, study: list[Any], *, most: int) -> None:
    """Before the first step, each machine says whether it can take part, by those workers that will do steps (`most` in all)."""
    from ray import exceptions

    remote = ray.remote(_ready)
    answers = []
    for node in (node for node in ray.nodes() if node["Alive"]):
        there = {"num_cpus": 0, "max_retries": 1, "scheduling_strategy": _node(ray, node["NodeID"], soft=False)}
        workers = max(1, min(most, int(node["Resources"].get("CPU", 1))))
        answers += [remote.options(**_options(Resources()) | there).remote(probe, study) for _ in range(workers)]
    for answer in answers:
        try:
            refusal = ray.get(answer)
        except exceptions.RayTaskError as error:
            raise _unready(error.cause) from None
        except exceptions.RayError:
            continue  # lost in the meantime
        if refusal is not None:
            raise refusal
    if not answered(probe):
        raise EngineError(f"nothing that workers write to {probe.workspace} arrives here.")


def _unready(cause: Exception) -> EngineError:
    """Why a machine of the cluster could not even look."""
    lines = str(cause).strip().splitlines() or [""]
    if isinstance(cause, ImportError):
        hint = "Install refeed on every machine, in the version of this one."
        return EngineError(f"a machine of the Ray cluster cannot load refeed: {lines[-1].rstrip('.')}.", hint=hint)
    return EngineError(
        f"a machine of the Ray cluster cannot get ready: {type(cause).__name__}: {lines[0].rstrip('.')}.",
        hint="Can it reach this machine? Type: ray status, on both.",
    )


# Inside a worker process ------------------------------------------------------------------------------------------------------

_worker: dict[str, Any] = {}


class _Ticks:
    """An actor beside the driver that collects what workers tell."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    def put(self, event: Event) -> None:
        self._events.append(event)

    def take(self) -> list[Event]:
        events, self._events = self._events, []
        return events


def _ready(probe: Probe, study: list[Any]) -> RefeedError | None:
    """Load what steps need, once; or why this worker may not do any."""
    if _worker.get("token") == probe.token:
        return None
    import pyarrow.parquet  # noqa: F401  (every step reads or writes with it)
    import ray

    _worker.clear()
    if refusal := look(probe):
        return refusal
    try:
        _worker.update(workspace=open_workspace(probe.workspace), study=unpacked(ray.get(study[0])), token=probe.token)
    except RefeedError as error:
        return error
    return None


def _work(task: Task, probe: Probe, study: list[Any], ticks: Any) -> Event | RefeedError:
    if refusal := _ready(probe, study):
        return refusal
    try:
        return perform_and_tell(task, _worker["study"], _worker["workspace"], Sparing(ticks.put.remote))
    except RefeedError as error:
        return error

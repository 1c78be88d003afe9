"""Steps as elements of Slurm job arrays with dependencies along the graph, by submitit."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from refeed.core.devices import threads
from refeed.core.errors import EngineError, RefeedError
from refeed.studies import resources
from refeed.studies.engines.arrays import Array, arrays
from refeed.studies.engines.base import (
    MAX_RETRIES,
    Event,
    Listener,
    Queue,
    environment_variables,
    given_up,
    perform_and_tell,
    portable,
    refuse_what_is_not_here,
    unpacked,
)
from refeed.studies.engines.elsewhere import Probe, look
from refeed.studies.environment import versions
from refeed.studies.tasks import Plan, Task
from refeed.workspace import Workspace
from refeed.workspace.files import write_bytes
from refeed.workspace.objects import is_url

ASK_SLURM = 6  # every so many looks at the result files, Slurm itself is asked


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """Job arrays, one for each generation and kind of step, submitted at once and waiting for each other.

    `partition`, `account`, `qos`, `constraint`: as of sbatch. `minutes`, `memory_gb`: the limits of one step. `workers`: at most so
    many steps of an array at a time. `setup`: lines of shell before each step, such as "module load cuda". `sbatch`: any other
    option of sbatch, as in `--set slurm.sbatch.reservation=night`. `poll_seconds`: how often results are looked for. `cluster`:
    "slurm", or "local" to try it out: the same steps as processes of this machine.

    The jobs go on if the driver ends; the same command attaches to those that are left. A step that is preempted or killed with its
    machine is requeued; one whose job dies is submitted again, twice.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    minutes: int = 60
    memory_gb: float | None = None
    workers: int | None = None
    setup: tuple[str, ...] = ()
    sbatch: dict[str, Any] = field(default_factory=dict)
    poll_seconds: float = 5.0
    cluster: str = "slurm"
    name: ClassVar[str] = "slurm"
    extra: ClassVar[str] = "slurm"
    requires: ClassVar[tuple[str, ...]] = ("submitit",)

    def __post_init__(self) -> None:
        if self.cluster not in ("slurm", "local"):
            raise EngineError(f"slurm.cluster must be 'slurm' or 'local', not {self.cluster!r}.")
        for option in ("minutes", "memory_gb", "workers", "poll_seconds"):
            value = getattr(self, option)
            if value is not None and not 0 < value < math.inf:
                raise EngineError(f"slurm.{option} must be above zero, not {value:g}.")

    def __call__(self, plan: Plan, workspace: Workspace, listener: Listener) -> None:
        self._refuse(plan, workspace)
        if not plan.pending:
            return
        for program in ("sbatch", "srun", "sacct") if self.cluster == "slurm" else ():
            if shutil.which(program) is None:
                raise EngineError(
                    f"there is no {program} here: this is no machine of a Slurm cluster from which jobs can be submitted.",
                    hint="Type it on a login node; to try it out on this machine: --set slurm.cluster=local",
                )
        import cloudpickle  # comes with submitit; it sends classes of scripts and notebooks too

        folder = jobs_folder(plan, workspace)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "probe").write_text(folder.name)
        write_bytes(folder / "study", portable(plan.study, cloudpickle.dumps))
        drive = _Local if self.cluster == "local" else _Arrays
        drive(self, plan, workspace, folder, listener).run()
        shutil.rmtree(folder, ignore_errors=True)

    def scripts(self, plan: Plan, workspace: Workspace) -> Iterator[tuple[str, str]]:
        """The batch scripts that a run would submit, with their titles. Where one waits for another, `$JOB_n` stands for its id."""
        from submitit.slurm import slurm

        self._refuse(plan, workspace)
        folder = jobs_folder(plan, workspace)
        command = f"python -u -m submitit.core._submit {folder}"
        for array in arrays(plan.pending):
            ids = {number: f"$JOB_{number}" for number in array.after}
            options = {name.removeprefix("slurm_"): value for name, value in self.parameters(plan, array, ids).items()}
            options = {slurm.SlurmExecutor._equivalence_dict().get(name, name): value for name, value in options.items()}
            if "mem" in options:
                options["mem"] = slurm._convert_mem(options["mem"])
            count = len(array.tasks) if len(array.tasks) > 1 else None
            yield array.title, slurm._make_sbatch_string(command=command, folder=folder, map_count=count, **options)

    def parameters(self, plan: Plan, array: Array, ids: Mapping[int, str]) -> dict[str, Any]:
        """What submitit is told about an array; `ids`, the job ids of those that it waits for."""
        asked = resources.of(plan.study.resources, array.kind)
        given = {
            "name": f"refeed-{plan.study.name}-{array.title}",
            "timeout_min": self.minutes,
            "cpus_per_task": asked.processors,
            "gpus_per_node": int(asked.gpus) or None,
            "mem_gb": self.memory_gb,
            "slurm_partition": self.partition,
            "slurm_account": self.account,
            "slurm_qos": self.qos,
            "slurm_constraint": self.constraint,
            "slurm_array_parallelism": self.workers,
            "slurm_setup": [*self.setup, *(f"export {name}={number}" for name, number in threads(asked.cpus).items())],
            "slurm_dependency": ",".join(f"{how}:{ids[number]}" for number, how in array.after.items()) or None,
            "slurm_additional_parameters": {"kill-on-invalid-dep": "yes", "requeue": True} | self.sbatch,
        }
        return {name: value for name, value in given.items() if value is not None}

    def _refuse(self, plan: Plan, workspace: Workspace) -> None:
        if is_url(workspace.address):
            raise EngineError(
                f"jobs of Slurm find what they need in a folder that all machines share, and {workspace.address} is none.",
                hint="Choose one with --workspace FOLDER, or another engine.",
            )
        for kind, asked in plan.study.resources.items():
            if asked.gpus != int(asked.gpus):
                raise EngineError(f"Slurm gives whole GPUs, but resources.{kind} asks for {asked.gpus:g}.")
        if self.cluster == "local":
            refuse_what_is_not_here(plan)


def jobs_folder(plan: Plan, workspace: Workspace) -> Path:
    """Where jobs find what they need and leave their logs, for as long as the study runs."""
    return workspace.path.absolute() / "jobs" / plan.study.digest[:12]


@dataclass(frozen=True, kw_only=True)
class Element:
    """What a job runs: one task. Returns the event of its end; why it may not take part; None where what it needs is not there."""

    task: Task
    probe: Probe

    def __call__(self) -> Event | RefeedError | None:
        if refusal := look(self.probe):
            return refusal
        try:
            study = unpacked((Path(self.probe.folder) / "study").read_bytes())
            workspace = Workspace(self.probe.workspace)
            inputs = [step for step in self.task.steps(study) for step in step.inputs()] if self.task.after else []
            if not all(workspace.has(step) and not workspace.outcome(step) for step in inputs):
                return None
            event = perform_and_tell(self.task, study, workspace, lambda event: None)
        except RefeedError as error:
            return error
        if _preempted and event.result.failed:  # the exit that ended the step was no doing of the step
            sys.exit(1)
        return event

    def checkpoint(self) -> Any:
        """Called by submitit when the job is preempted or out of time: the same again, which goes on from what is stored."""
        from submitit.helpers import DelayedSubmission

        _preempted.append(True)
        return DelayedSubmission(self)


_preempted: list[bool] = []


class _Jobs:
    """Jobs that were submitted, and what became of their tasks."""

    def __init__(self, engine: Slurm, plan: Plan, workspace: Workspace, folder: Path, listener: Listener) -> None:
        import submitit

        self.engine, self.plan, self.folder, self.listener = engine, plan, folder, listener
        self.probe = Probe(
            workspace=str(workspace.path.absolute()), folder=str(folder), token=folder.name, versions=versions(), lock=False
        )
        self.submitit = submitit
        self.running: dict[Any, Task] = {}
        self.deaths: dict[str, int] = {}
        self.looks = 0

    def wait(self) -> Iterator[tuple[Task, Event | None]]:
        """Tasks as their jobs end: with the event, or None where a job died or found that what it needs is not there."""
        while self.running:
            self.looks += 1
            ended = [job for job in self.running if job.done(force_check=False)]
            if not ended and self.looks % ASK_SLURM == 0:
                ended = [job for job in list(self.running)[:1] if job.done(force_check=True)]
            if not ended:
                time.sleep(self.engine.poll_seconds)
            for job in ended:
                task = self.running.pop(job)
                yield task, self._outcome(job, task)

    def _outcome(self, job: Any, task: Task) -> Event | None:
        state = job.state
        if not job.paths.result_pickle.exists() and not state.startswith("COMPLETED"):
            # Cancelled by Slurm, since what it waited for died: it comes again. Or it died itself.
            result = None if state.startswith("CANCELLED") else self._died(job, task, state)
        else:
            try:
                result = job.result()  # waits for the file to come through a slow file system
            except Exception as error:  # raised in the job outside of any step, or not readable
                result = self._died(job, task, str(error).strip().splitlines()[-1])
        if isinstance(result, RefeedError):
            raise result
        if result is not None:
            self.listener(Event(kind="started", task=task))
            self.listener(result)
        return result

    def _died(self, job: Any, task: Task, why: str) -> Event | None:
        self.deaths[task.key] = self.deaths.get(task.key, 0) + 1
        if self.deaths[task.key] <= MAX_RETRIES:
            return None
        log = (
            f"its log is {job.paths.stderr}" if job.paths.stderr.exists() else "it left no log: does its machine see the workspace?"
        )
        return given_up(task, f"its job died {self.deaths[task.key]} times ({why}); {log}")


class _Local(_Jobs):
    """Each task is submitted when what it needs is done."""

    def run(self) -> None:
        queue, most = Queue(self.plan), self.engine.workers or os.cpu_count() or 1
        executor = self.submitit.AutoExecutor(folder=self.folder, cluster="local")
        executor.update_parameters(timeout_min=self.engine.minutes)
        again: list[Task] = []
        while queue.unfinished:
            while len(self.running) < most and (task := again.pop() if again else queue.next()) is not None:
                with environment_variables(threads(resources.of(self.plan.study.resources, task.kind).cpus)):
                    self.running[executor.submit(Element(task=task, probe=self.probe))] = task
            task, event = next(self.wait())
            if event is None:
                again.append(task)
            else:
                queue.ended(task, failed=event.result.failed)


class _Arrays(_Jobs):
    """Everything is submitted at once and waits inside Slurm; what died, or stood behind it, is submitted again."""

    def run(self) -> None:
        left = dict(self.plan.pending)
        self._attach(left)
        while left:
            if not self.running:
                self._submit(left)
            try:
                for task, event in self.wait():
                    if event is not None:
                        left.pop(task.key, None)
                        if event.result.failed:
                            _drop_behind(task, left)
            except RefeedError:
                self._cancel()
                raise

    def _submit(self, left: Mapping[str, Task]) -> None:
        ids: dict[int, str] = {}
        for number, array in enumerate(arrays(left)):
            executor = self.submitit.AutoExecutor(folder=self.folder, cluster="slurm")  # anew, since parameters stay
            executor.update_parameters(**self.engine.parameters(self.plan, array, ids))
            try:
                with executor.batch():
                    jobs = [executor.submit(Element(task=task, probe=self.probe)) for task in array.tasks]
            except Exception as error:
                self._cancel()
                reason = str(getattr(error, "stderr", "") or error).strip().splitlines()[-1]
                raise EngineError(f"sbatch refused the job array {array.title}: {reason}.") from None
            ids[number] = jobs[0].job_id.partition("_")[0]
            self.running |= dict(zip(jobs, array.tasks, strict=True))
            self._note()

    def _note(self) -> None:
        """Which job does which task, for a driver that takes this one's place."""
        write_bytes(self.folder / "jobs.json", json.dumps({job.job_id: task.key for job, task in self.running.items()}).encode())

    def _attach(self, left: Mapping[str, Task]) -> None:
        try:
            noted = json.loads((self.folder / "jobs.json").read_bytes())
        except (OSError, ValueError):
            return
        for identity, key in noted.items():
            if key in left:
                self.running[self.submitit.SlurmJob(folder=self.folder, job_id=identity)] = left[key]

    def _cancel(self) -> None:
        if numbers := sorted({job.job_id.partition("_")[0] for job in self.running}):
            subprocess.run(["scancel", *numbers], check=False)


def _drop_behind(failed: Task, left: dict[str, Task]) -> None:
    """Drop what needs a task that failed, and what needs that."""
    dropped = {failed.key}
    for key, task in list(left.items()):  # in an order in which each comes after those it needs
        if task.after & dropped:
            dropped.add(key)
            del left[key]

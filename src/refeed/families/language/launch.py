"""One fit by several processes of this machine, each with a device, started by torch.distributed.run (torchrun).

The driver writes the fit into a folder: a pickle, and beside it the arrays, which the processes map and so share. It hears them
through a pipe and holds the end of another, which closes when it dies, however it dies: the processes then end too. A process that
dies takes the others with it; they are started again and go on from the last state, twice. One that raises is an error at once.
"""

from __future__ import annotations

import json
import logging
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from refeed.core import checkpoints, progress
from refeed.core.devices import Devices
from refeed.core.errors import RefeedError, StepFailed, StudyError
from refeed.families.language import children, packed_nets
from refeed.families.language.sending import dump, load
from refeed.families.language.training import Training

MAX_RETRIES = 2
HELD_BACK = {signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2}  # Ctrl-C and what Slurm sends are for the driver, which ends the others
OF_A_LAUNCHER = ("PET_", "TORCHELASTIC_")  # options of torchrun that a cluster's own launcher sets: the number of its machines
log = logging.getLogger("refeed")


@dataclass(frozen=True, kw_only=True)
class Job:
    """What each process is told."""

    training: Training
    sharded: bool | None
    state: Path | None  # where states are kept
    seconds: float  # between two


def together(training: Training, devices: Devices) -> list[float]:
    """What `train` does, by `devices.count` processes; the weights are put into the network, the learning curve is returned."""
    refuse_too_few_gpus(devices.count)
    if devices.sharded and not packed_nets.is_known(training.model.net):
        kind = training.model.net.config.model_type
        raise StudyError(
            f"a network of type {kind!r}, or in this form, cannot be sharded: only plain GPT-2 and Llama can.",
            hint="Leave out resources.fit.sharded: every device then has the whole network.",
        )
    state = checkpoints.folder()
    job = Job(training=training, sharded=devices.sharded, state=state and state.absolute(), seconds=checkpoints.SECONDS)
    with _folder(state) as folder:
        try:
            dump(job, folder / "job")
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise StudyError(f"this fit cannot be sent to other processes: {error}.", hint="Train on one device.") from None
        curve, weights = _outcome(folder, devices)
        net = training.model.net
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                parameter.copy_(weights[name])
    net.eval()
    return list(curve)


def _outcome(folder: Path, devices: Devices) -> tuple[list[float], dict[str, torch.Tensor]]:
    """What the fit in `folder` comes to, whoever dies meanwhile."""
    for _ in range(MAX_RETRIES + 1):
        run = _Run(folder, devices)
        ended = run.wait()
        if isinstance(ended, RefeedError):
            raise ended
        if ended is not None:
            return ended
        log.warning("A process of a fit over %d devices died (%s).", devices.count, run.death)
    times = f"{MAX_RETRIES + 1} time{'s' * (MAX_RETRIES > 0)}"
    raise StepFailed(
        f"a process of a fit over {devices.count} devices died {times} ({run.death}).",
        hint="The machine may be out of memory. What was done until the last state is kept: the same command goes on from there.",
    )


def refuse_too_few_gpus(count: int) -> None:
    """On a machine with GPUs every process needs one of its own; on one without, processes share the processors."""
    if 0 < torch.cuda.device_count() < count:
        found = torch.cuda.device_count()
        raise StudyError(
            f"a fit is to be spread over {count} devices, but this machine has {found} GPU{'s' * (found > 1)}.",
            hint=f"Type: --set resources.fit.devices={found}, or hide the GPUs: CUDA_VISIBLE_DEVICES= refeed ...",
        )


class _Run:
    """One run of torch.distributed.run over the job in a folder."""

    def __init__(self, folder: Path, devices: Devices) -> None:
        self.folder = folder
        self.began = False
        self.death = "no reason was given"
        for path in folder.glob("error-*"):
            path.unlink()
        shutil.rmtree(folder / "result", ignore_errors=True)
        ours = children.environment(devices.threads)
        environment = {name: value for name, value in ours.items() if not name.startswith(OF_A_LAUNCHER)}
        if sys.platform == "linux" and not torch.cuda.is_available():
            environment.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else by the host's name, which may not be one that resolves
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={devices.count}", "--max-restarts=0"]
        command += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1", f"--rdzv-id={uuid.uuid4().hex}"]
        with (folder / "log").open("wb") as errors, _held_back():
            self._launcher = subprocess.Popen(
                [*command, "-m", "refeed.families.language.worker", str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,
            )

    def _end_with_launcher(self) -> None:
        """If the launcher is killed, what it started goes on: it ends when its input does."""
        self._launcher.wait()
        assert self._launcher.stdin is not None
        self._launcher.stdin.close()

    def wait(self) -> tuple[list[float], dict[str, torch.Tensor]] | RefeedError | None:
        """What the fit came to; an error that would come again; None where a process died."""
        assert self._launcher.stdin is not None
        assert self._launcher.stdout is not None
        try:
            threading.Thread(target=self._end_with_launcher, daemon=True).start()
            for line in self._launcher.stdout:  # ends when every process has ended
                self._hear(line)
            code = self._launcher.wait()
        finally:
            self._launcher.kill()
            self._launcher.wait()
            self._launcher.stdin.close()
            self._launcher.stdout.read()  # until all are gone, so that nobody writes a state any more
            self._launcher.stdout.close()
        if (self.folder / "result").is_dir():
            result: tuple[list[float], dict[str, torch.Tensor]] | RefeedError = load(self.folder / "result")
            return result
        for path in sorted(self.folder.glob("error-*")):
            number = path.name.partition("-")[2]
            return StepFailed(f"process {number} of a fit over several devices raised:\n{path.read_text().rstrip()}")
        text = (self.folder / "log").read_text(errors="replace")
        if not self.began:
            return StepFailed(f"torch.distributed.run could not start the processes of a fit:\n{_last_lines(text)}")
        died = re.findall(r"rank *: (\d+).*\n *exitcode *: (-?\d+)", text)
        self.death = ", ".join(f"number {rank} with exit code {number}" for rank, number in died[-1:]) or f"exit code {code}"
        return None

    def _hear(self, line: bytes) -> None:
        self.began = True
        kind, *told = json.loads(line)
        if kind == "tick":
            progress.tick(*told)
        elif kind == "warning":
            log.warning("%s", *told)


@contextmanager
def _folder(state: Path | None) -> Iterator[Path]:
    """A folder for the job: beside the state, where there is a place for one, since it may be as large as the training set."""
    if state is not None:
        shutil.rmtree(state / "job", ignore_errors=True)  # of a driver that was killed
        state.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="refeed-fit-")) if state is None else state.absolute() / "job"
    folder.mkdir(exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _held_back() -> Iterator[None]:
    """A process that is started inside the block inherits that it does not hear these signals."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _last_lines(text: str) -> str:
    return "\n".join([line for line in text.splitlines() if line.strip()][-5:])

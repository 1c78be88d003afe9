"""What a step asks of the machine it runs on. Not part of a study's identity: the numbers do not depend on it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass

from refeed.core.devices import Devices
from refeed.core.errors import StudyError

KINDS = ("draw", "fit", "sample", "alter", "measure")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one step asks for: `cpus`, processors, which is also how many threads its libraries use; `gpus`, devices.

    `parts`, of sample alone: into how many steps, side by side, the rows of one model are divided; each asks for as much.

    `devices`, of a fit alone: over how many devices of one machine it is spread, each with a process; as many as `gpus` unless
    given. Without GPUs the devices are processors, shared out among the processes. `sharded`: whether each device holds a part of
    the weights (FSDP) or all of them (DDP); if left out, a part where all do not fit.

    A share of a GPU, as in `gpus = 0.25`, is understood by the engine ray alone. More than one thread or device changes the last
    bits of what is computed in floating point, as it does on any machine.
    """

    cpus: int = 1
    gpus: float = 0
    parts: int = 1
    devices: int | None = None
    sharded: bool | None = None

    def __post_init__(self) -> None:
        if self.cpus < 1:
            raise StudyError(f"a step needs at least one processor, not cpus = {self.cpus}.")
        if not (0 <= self.gpus < 1 or self.gpus % 1 == 0 < self.gpus):
            raise StudyError(f"a step asks for a whole number of GPUs or a share of one, not for gpus = {self.gpus:g}.")
        if self.parts < 1:
            raise StudyError(f"a step has at least one part, not parts = {self.parts}.")
        if self.devices is not None and self.devices < 1:
            raise StudyError(f"a fit needs at least one device, not devices = {self.devices}.")
        if self.devices is not None and self.gpus and self.devices != self.gpus:
            raise StudyError(
                f"devices = {self.devices} and gpus = {self.gpus:g} contradict each other.",
                hint="Each device of a fit is a GPU, where it asks for GPUs: say gpus alone.",
            )
        if self.sharded is not None and self.spread < 2:
            raise StudyError("sharded needs several devices to shard over.", hint="Set devices or gpus to their number, too.")

    @property
    def spread(self) -> int:
        """Over how many devices a fit is spread."""
        return self.devices or max(1, int(self.gpus))

    @property
    def processors(self) -> int:
        """The processors to be set apart: at least one for each process."""
        return max(self.cpus, self.spread)

    @property
    def granted(self) -> Devices:
        """What a fit may use."""
        return Devices(count=self.spread, threads=max(1, self.cpus // self.spread), sharded=self.sharded)

    @property
    def described(self) -> str:
        gpus = f" and {self.gpus:g} GPU{'s' * (self.gpus > 1)}" if self.gpus else ""
        return f"{self.processors} processor{'s' * (self.processors > 1)}{gpus}"


def of(resources: Mapping[str, Resources], kind: str) -> Resources:
    """What a step or task of that kind asks for."""
    return resources.get("sample" if kind == "part" else kind, Resources())


def visible_gpus() -> int:
    """The GPUs that this process can compute on."""
    if importlib.util.find_spec("torch") is None:
        return 0
    import torch

    return int(torch.cuda.device_count())


def refuse_without_devices(resources: Mapping[str, Resources]) -> None:
    """One error where a step asks for more GPUs than this machine has; or for more devices than it has GPUs or else processors."""
    if not any(asked.gpus or asked.spread > 1 for asked in resources.values()):
        return
    available = visible_gpus()
    for kind, asked in resources.items():
        if asked.gpus > available:
            wanted = f"{asked.gpus:g} GPU{'s' * (asked.gpus > 1)}"
            raise StudyError(
                f"resources.{kind} asks for {wanted}, but this machine has {available or 'none'}.",
                hint=f"Type: --set resources.{kind}.gpus={available}",
                at=f"resources.{kind}.gpus",
            )
        most = available or os.cpu_count() or 1
        if asked.spread > most:
            what = f"{most} {'GPU' if available else 'processor'}{'s' * (most > 1)}"
            hide = ", or hide the GPUs: CUDA_VISIBLE_DEVICES= refeed ..." if available else ""
            raise StudyError(
                f"resources.{kind} asks for {asked.spread} devices, but this machine has {what}.",
                hint=f"Type: --set resources.{kind}.devices={most}{hide}",
                at=f"resources.{kind}.devices",
            )

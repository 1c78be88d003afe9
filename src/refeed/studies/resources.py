"""What a step asks of the machine it runs on. Not part of a study's identity: the numbers do not depend on it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass

from refeed.core.errors import StudyError

KINDS = ("draw", "fit", "sample", "alter", "measure")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one step asks for: `cpus`, processors, which is also how many threads its libraries use; `gpus`, devices.

    `parts`, of sample alone: into how many steps, side by side, the rows of one model are divided; each asks for as much.

    A share of a GPU, as in `gpus = 0.25`, is understood by the engine ray alone. More than one thread changes the last bits of
    what is computed in floating point, as it does on any machine.
    """

    cpus: int = 1
    gpus: float = 0
    parts: int = 1

    def __post_init__(self) -> None:
        if self.cpus < 1:
            raise StudyError(f"a step needs at least one processor, not {self.cpus}.")
        if self.gpus < 0:
            raise StudyError(f"a step cannot ask for {self.gpus} GPUs.")
        if self.parts < 1:
            raise StudyError(f"a step has at least one part, not {self.parts}.")

    @property
    def described(self) -> str:
        gpus = f" and {self.gpus:g} GPU{'s' * (self.gpus > 1)}" if self.gpus else ""
        return f"{self.cpus} processor{'s' * (self.cpus > 1)}{gpus}"


def of(resources: Mapping[str, Resources], kind: str) -> Resources:
    """What a step or task of that kind asks for."""
    return resources.get("sample" if kind == "part" else kind, Resources())


def visible_gpus() -> int:
    """The GPUs that this process can compute on."""
    if importlib.util.find_spec("torch") is None:
        return 0
    import torch

    return int(torch.cuda.device_count())


def refuse_without_gpus(resources: Mapping[str, Resources], *, available: int, where: str) -> None:
    """One error where a step asks for more GPUs than `available`."""
    for kind, asked in resources.items():
        if asked.gpus > available:
            raise StudyError(
                f"resources.{kind} asks for {asked.gpus:g} GPU{'s' * (asked.gpus > 1)}, but {where} has {available or 'none'}.",
                hint=f"Type: --set resources.{kind}.gpus={available}",
                at=f"resources.{kind}.gpus",
            )

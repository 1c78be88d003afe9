"""The state of a fit that goes on later: weights, moments, steps done and the curve so far, by torch.distributed.checkpoint.

One format for any number of processes and for whole or sharded weights: what several wrote one reads, and the other way round.
Everything in it is a tensor, so that nothing but tensors is read back.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def save(net: Any, optimizer: torch.optim.AdamW, path: Path, *, done: int, curve: Sequence[float], points: int) -> None:
    """Write the state into the new folder `path`: `done` steps, and what is there of a curve of `points`.

    Every process that trains the network calls it.
    """
    from torch.distributed import checkpoint

    progress = torch.tensor([done, len(curve), *curve, *[0.0] * (points - len(curve))], dtype=torch.float64)
    with _quietly():
        checkpoint.save(_tensors(net, optimizer) | {"progress": progress}, storage_writer=checkpoint.FileSystemWriter(path))


def load(net: Any, optimizer: torch.optim.AdamW, path: Path, *, points: int) -> tuple[int, list[float]]:
    """Put the state in the folder `path` into a network and its optimizer; returns the steps done, and the curve so far."""
    from torch.distributed import checkpoint

    for parameter in net.parameters():
        optimizer.state[parameter] = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    progress = torch.zeros(2 + points, dtype=torch.float64)
    with _quietly():
        checkpoint.load(_tensors(net, optimizer) | {"progress": progress}, storage_reader=checkpoint.FileSystemReader(path))
    done, noted, *curve = progress.tolist()
    for parameter in net.parameters():
        optimizer.state[parameter]["step"].fill_(done)
    return int(done), curve[: int(noted)]


def _tensors(net: Any, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """The weights and their moments themselves, by name."""
    found: dict[str, Tensor] = {}
    for name, parameter in net.named_parameters():
        moments = optimizer.state[parameter]
        found |= {f"value.{name}": parameter.detach(), f"mean.{name}": moments["exp_avg"], f"square.{name}": moments["exp_avg_sq"]}
    return found


@contextmanager
def _quietly() -> Iterator[None]:
    """One process alone is no accident."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
        yield

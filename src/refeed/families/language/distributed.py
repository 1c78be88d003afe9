"""How processes train one network together: each takes a part of every step's stories, and they add their gradients.

Which stories a step has, and in which order, does not depend on how many processes there are. The gradient of a step is the
gradient of its mean nats a token over *all* its tokens: every process divides by that number, and the parts are summed. (Averaging
the means of the processes, as is usual, would weigh a token by how many others its process had.) So one process and several differ
in the order of sums in floating point, and in nothing else.

`Alone` is one process. `Replicated` keeps the whole network on every device and adds gradients while they are computed
(DistributedDataParallel). `Sharded` keeps a part of every tensor, of its gradient and of its moments on each device, and gathers
one block of the network at a time (FSDP2, `fully_shard`). It is for networks that `packed_nets` computes: all processes must gather
equally often, and another architecture has a forward pass for each group of stories, of which processes have different numbers.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, distributed, nn

from refeed.core.rows import Ragged
from refeed.families.language import packed_nets
from refeed.families.language.layout import Batch, TrainingText
from refeed.families.language.model import LanguageModel
from refeed.families.language.packed_nets import Group

BYTES_OF_A_PARAMETER = 16  # itself, its gradient, and two moments, each in float32
LARGEST_SHARE = 0.7  # of a device's memory for these; the rest is for activations


class Ranks(Protocol):
    """The processes that train one network together, as one of them sees them."""

    rank: int
    size: int

    def place(self, net: Any, where: torch.device) -> None:
        """Put the network, or this process's part of it, on its device."""
        ...

    def batches(self, text: TrainingText, pieces: np.ndarray, *, max_cells: int) -> list[Batch]:
        """This process's share of a step; as many batches in each process."""
        ...

    def learn(
        self, net: Any, ids: Tensor, targets: Tensor, weights: Tensor, groups: Sequence[Group], *, dtype: torch.dtype, last: bool
    ) -> Tensor:
        """Add a batch's gradient to the parameters'; returns its loss. After the `last` of a step all processes' are in it."""
        ...

    def total(self, *values: float) -> list[float]:
        """Each value, summed over the processes."""
        ...

    def held_out_loss(self, model: LanguageModel, stories: Ragged) -> float:
        """Nats a token on `stories`, the same in each process."""
        ...

    def weights(self, net: Any) -> dict[str, Tensor]:
        """All weights, whole and on the processor, in the first process; nothing in the others."""
        ...


class Alone:
    """One process."""

    rank, size = 0, 1

    def place(self, net: Any, where: torch.device) -> None:
        net.to(where)

    def batches(self, text: TrainingText, pieces: np.ndarray, *, max_cells: int) -> list[Batch]:
        return text.batches(pieces, max_cells=max_cells)

    def learn(
        self, net: Any, ids: Tensor, targets: Tensor, weights: Tensor, groups: Sequence[Group], *, dtype: torch.dtype, last: bool
    ) -> Tensor:
        loss = packed_nets.loss(net, ids, targets, weights, groups, dtype=dtype)
        loss.backward()
        return loss.detach()

    def total(self, *values: float) -> list[float]:
        return list(values)

    def held_out_loss(self, model: LanguageModel, stories: Ragged) -> float:
        return model.nats_a_token(stories)

    def weights(self, net: Any) -> dict[str, Tensor]:
        net.to("cpu")
        return dict(net.named_parameters())


class Replicated:
    """Several processes, each with all of the network."""

    def __init__(self) -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self._whole: Any = None

    def place(self, net: Any, where: torch.device) -> None:
        self._whole = nn.parallel.DistributedDataParallel(
            _Loss(net.to(where)), broadcast_buffers=False, gradient_as_bucket_view=True
        )

    def batches(self, text: TrainingText, pieces: np.ndarray, *, max_cells: int) -> list[Batch]:
        return share(text, pieces, rank=self.rank, size=self.size, max_cells=max_cells)

    def learn(
        self, net: Any, ids: Tensor, targets: Tensor, weights: Tensor, groups: Sequence[Group], *, dtype: torch.dtype, last: bool
    ) -> Tensor:
        with nullcontext() if last else self._whole.no_sync():
            loss = self._whole(ids, targets, weights, groups, dtype)
            (loss * self.size).backward()  # the processes' gradients are averaged: what is wanted is their sum
        return loss.detach()

    def total(self, *values: float) -> list[float]:
        return _summed(values)

    def held_out_loss(self, model: LanguageModel, stories: Ragged) -> float:
        return model.nats_a_token(stories)

    def weights(self, net: Any) -> dict[str, Tensor]:
        return {name: parameter.detach().cpu() for name, parameter in net.named_parameters()} if self.rank == 0 else {}


class Sharded:
    """Several processes, each with a part of every tensor."""

    def __init__(self) -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def place(self, net: Any, where: torch.device) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        mesh = init_device_mesh(where.type, (self.size,))
        for part in (*blocks(net), net):
            fully_shard(part, mesh=mesh)
            part.packed = types.MethodType(_packed, part)
            register_fsdp_forward_method(part, "packed")
        net.to(where)  # buffers

    def batches(self, text: TrainingText, pieces: np.ndarray, *, max_cells: int) -> list[Batch]:
        return share(text, pieces, rank=self.rank, size=self.size, max_cells=max_cells)

    def learn(
        self, net: Any, ids: Tensor, targets: Tensor, weights: Tensor, groups: Sequence[Group], *, dtype: torch.dtype, last: bool
    ) -> Tensor:
        loss = packed_nets.loss(net, ids, targets, weights, groups, dtype=dtype)
        (loss * self.size).backward()
        return loss.detach()

    def total(self, *values: float) -> list[float]:
        return _summed(values)

    def held_out_loss(self, model: LanguageModel, stories: Ragged) -> float:
        found = model.nats_a_token(stories)
        model.net.reshard()  # without a way back, the outermost weights would stay gathered
        return found

    def weights(self, net: Any) -> dict[str, Tensor]:
        found = {}
        for name, parameter in net.named_parameters():
            whole = parameter.full_tensor().detach().cpu()  # all processes take part
            if self.rank == 0:
                found[name] = whole
        return found


def share(text: TrainingText, pieces: np.ndarray, *, rank: int, size: int, max_cells: int) -> list[Batch]:
    """The batches of process `rank` of `size` in the step of `pieces`, as many in each process, since all gather and add together.

    A process that has fewer makes up for it with the step's shortest story at weight 0.
    """
    shares = text.shares(pieces, size)
    most = max(text.num_batches(mine, max_cells=max_cells) for mine in shares)
    own = text.batches(shares[rank], max_cells=max_cells) if len(shares[rank]) else []
    if len(own) < most:
        (shortest,) = text.batches(shares[0][-1:], max_cells=max_cells)
        silent = replace(shortest, weights=np.zeros_like(shortest.weights), num_tokens=0)
        own += [silent] * (most - len(own))
    return own


def blocks(net: Any) -> list[Any]:
    """The layers of a transformer: the longest list of modules in it."""
    lists = [module for module in net.modules() if isinstance(module, nn.ModuleList)]
    return list(max(lists, key=len, default=[]))


def too_large(net: Any, *, memory: int) -> bool:
    """Whether the network, its gradients and its moments leave too little of a device's `memory` (bytes) to train it whole."""
    return sum(parameter.numel() for parameter in net.parameters()) * BYTES_OF_A_PARAMETER > LARGEST_SHARE * memory


class _Loss(nn.Module):
    """The loss as a forward pass, which is what DistributedDataParallel wraps."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, ids: Tensor, targets: Tensor, weights: Tensor, groups: Sequence[Group], dtype: torch.dtype) -> Tensor:
        return packed_nets.loss(self.net, ids, targets, weights, groups, dtype=dtype)


def _packed(part: Any, compute: Callable[..., Tensor], *arguments: Any) -> Tensor:
    return compute(part, *arguments)


def _summed(values: Sequence[float]) -> list[float]:
    where = torch.device("cuda", torch.cuda.current_device()) if distributed.get_backend() == "nccl" else None
    tensor = torch.tensor(values, dtype=torch.float64, device=where)
    distributed.all_reduce(tensor)
    return [float(value) for value in tensor.tolist()]

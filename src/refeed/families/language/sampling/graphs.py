"""CUDA graphs: a step is recorded once for each pair of shapes, and replayed as one launch in place of some hundred.

Never run on a GPU: it follows the documentation of PyTorch 2.13. What is recorded is tested on processors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any


class Recorded:
    """`step(rows, span)`, which must change memory in place that outlives it, return nothing and ask for no value."""

    def __init__(self, step: Callable[[int, int], None]) -> None:
        import torch

        self._step = step
        self._graphs: dict[tuple[int, int], Any] = {}
        self._memory = torch.cuda.graph_pool_handle()  # one for all: between steps nothing lives there

    def __call__(self, rows: int, span: int) -> None:
        import torch

        if (graph := self._graphs.get((rows, span))) is not None:
            graph.replay()
            return
        # the first step of a shape is taken outside of a graph, so that libraries are set up; recording takes none
        _side_stream().wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(_side_stream()):
            self._step(rows, span)
        torch.cuda.current_stream().wait_stream(_side_stream())
        graph = self._graphs[rows, span] = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory, stream=_side_stream()):
            self._step(rows, span)


@cache
def _side_stream() -> Any:
    """One for the process: libraries keep a workspace for every stream they have seen."""
    import torch

    return torch.cuda.Stream()


def free_bytes() -> int:
    """Memory of the device that is free, or held by PyTorch for nothing."""
    import torch

    return int(torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated())

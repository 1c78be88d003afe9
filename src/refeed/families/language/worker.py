"""One of several processes that do a fit together, as torch.distributed.run starts it."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, distributed

from refeed.core import checkpoints, progress
from refeed.core.errors import Stopped
from refeed.families.language import children, packed_nets
from refeed.families.language.distributed import Ranks, Replicated, Sharded, too_large
from refeed.families.language.launch import Job
from refeed.families.language.sending import dump, load
from refeed.families.language.training import train

log = logging.getLogger("refeed")


def main(folder: Path) -> None:
    """What each process runs."""
    voice = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no word to the driver
    children.end_with_parent()
    rank = int(os.environ["RANK"])
    try:
        with ExitStack() as stack:
            _meet()
            if rank == 0:
                _tell_all(stack, voice)
            ended = _work(folder)
        if rank == 0:
            dump(ended, folder / "result")
        distributed.destroy_process_group()
    except Exception as error:
        if not _is_of_another(error):
            (folder / f"error-{rank}").write_text(traceback.format_exc())
        traceback.print_exc()
        sys.exit(1)


def _tell_all(stack: ExitStack, voice: TextIO) -> None:
    """Let the driver hear progress and warnings, each as a line of JSON."""

    def tell(*words: Any) -> None:
        print(json.dumps(words), file=voice)

    tell("began")
    log.addHandler(_Telling(tell))
    stack.enter_context(progress.listen(lambda *tick: tell("tick", *tick)))


def _meet() -> None:
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("nccl")
    else:
        distributed.init_process_group("gloo")


def _work(folder: Path) -> tuple[list[float], dict[str, Tensor]] | Stopped:
    job: Job = load(folder / "job")
    checkpoints.SECONDS = job.seconds
    with checkpoints.kept_in(job.state) if job.state else nullcontext():
        try:
            return train(job.training, _ranks(job))
        except Stopped as stopped:
            return stopped


def _ranks(job: Job) -> Ranks:
    sharded, net = job.sharded, job.training.model.net
    if sharded is None and packed_nets.is_known(net):
        sharded = torch.cuda.is_available() and too_large(net, memory=torch.cuda.mem_get_info()[1])
    return Sharded() if sharded else Replicated()


class _Telling(logging.Handler):
    """Warnings of the first process are the driver's."""

    def __init__(self, tell: Any) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell("warning", record.getMessage())


def _is_of_another(error: Exception) -> bool:
    """Whether an exception says no more than that another process is gone."""
    return isinstance(error, distributed.DistError) or "gloo" in str(error) or "NCCL" in str(error)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

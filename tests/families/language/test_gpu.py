"""Sampling on a CUDA device: recorded steps against steps one by one, and both against the processor."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from refeed.core.errors import Stopped
from refeed.core.seeds import Seed
from refeed.families.language import nets
from refeed.families.language.model import LanguageModel
from refeed.families.language.sampler import Ancestral
from refeed.families.language.sampling import wave
from refeed.families.language.sampling.draws import Draws, Job
from refeed.families.language.source import stories_of

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def drawn(model, num_rows, *, world=None, **options):
    options = {"engine": "torch", "device": "cuda"} | options
    return stories_of(Ancestral(**options).sample(model, num_rows, world=world, seed=Seed(7)))


def share_apart(rows, others):
    return np.mean([not np.array_equal(a, b) for a, b in zip(rows, others, strict=True)])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.8, "top_k": 20, "top_p": 0.9}, {"prompt": 6}, {"batch": 70}], ids=str)
def test_recorded_steps_write_what_single_steps_write(model, world, monkeypatch, dtype, options):
    recorded = drawn(model, 500, world=world, dtype=dtype, **options)
    monkeypatch.setattr(wave, "Recorded", lambda step: step)
    assert share_apart(recorded, drawn(model, 500, world=world, dtype=dtype, **options)) <= 0.002


def test_a_gpu_writes_what_a_processor_writes(model):
    assert share_apart(drawn(model, 500), drawn(model, 500, device="cpu")) <= 0.01


@pytest.mark.parametrize(("dtype", "most"), [("float32", 2e-5), ("bfloat16", 5e-2)])
def test_logits_on_a_gpu_are_those_of_a_processor(model, samples, dtype, most):
    tokens = np.stack([row[:20] for row in stories_of(samples) if len(row) > 20][:30]).astype(np.int32)

    def logits(dtype, device, shapes):
        job = Job(draws=Draws(), key=0, stories=30, limit=20, end=model.tokenizer.end, slots=30, dtype=dtype)
        return wave.logits_of(model.net, job, tokens, device=device, shapes=shapes)

    truth = logits("float32", "cpu", wave.ANY)
    assert np.sqrt(np.square(logits(dtype, "cuda", wave.FEW) - truth).mean()) < most * max(1.0, float(truth.std()))


def test_memory_comes_back(model):
    used = []
    for _ in range(3):  # the first time libraries keep workspaces
        drawn(model, 500)
        torch.cuda.synchronize()
        used.append(torch.cuda.memory_allocated())
    assert used[1] == used[2]


def test_logits_that_are_not_finite_end_the_lineage(model):
    broken = LanguageModel(net=nets.build(model.net.config, seed=0), tokenizer=model.tokenizer)
    with torch.no_grad():
        broken.net.lm_head.weight[3] = float("nan")
    with pytest.raises(Stopped, match="non-finite"):
        drawn(broken, 9)

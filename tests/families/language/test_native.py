"""The native engine on shapes of all kinds, and what happens where it cannot be built."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
import torch

from refeed.core.errors import StudyError
from refeed.core.seeds import Seed
from refeed.families.language import nets
from refeed.families.language.sampler import Ancestral
from refeed.families.language.sampling import native, wave
from refeed.families.language.sampling.draws import Draws, Job
from refeed.families.language.sampling.network import read

needs_native = pytest.mark.skipif(native.build().library is None, reason=f"no native engine: {native.build().problem}")

SHAPES = {
    "gpt2": {"vocabulary": 301, "width": 40, "layers": 2, "heads": 4, "feed_forward": 100},
    "narrow heads": {"vocabulary": 50, "width": 24, "layers": 1, "heads": 8, "feed_forward": 33},
    "wide": {"vocabulary": 1000, "width": 192, "layers": 1, "heads": 3, "feed_forward": 300},
}


def llama(**changes):
    from transformers import LlamaConfig

    shape = {"vocab_size": 120, "hidden_size": 96, "intermediate_size": 100, "num_hidden_layers": 2, "num_attention_heads": 8}
    return LlamaConfig(**shape | {"max_position_embeddings": 40, "bos_token_id": 0, "eos_token_id": 0} | changes)


def gpt2(name):
    return nets.gpt2(end=0, context=40, deviation=0.3, **SHAPES[name])


CONFIGS = {name: lambda name=name: gpt2(name) for name in SHAPES} | {
    "llama": llama,
    "grouped queries": lambda: llama(num_key_value_heads=2),
    "one key for eight queries": lambda: llama(num_key_value_heads=1, tie_word_embeddings=True),
    "own head size and biases": lambda: llama(head_dim=10, attention_bias=True, mlp_bias=True),
    "scaled rotation": lambda: llama(rope_parameters={"rope_type": "linear", "rope_theta": 5000.0, "factor": 2.0}),
}


def forced_logits(library, net, tokens, **options):
    """Logits of the native engine before each token of `tokens`."""
    stories, limit = tokens.shape
    job = Job(draws=Draws(), key=0, stories=stories, limit=limit, end=0, slots=5, prompts=tokens, **options)
    out = np.zeros((stories, limit, net.config.vocab_size), np.float32)
    session = native.Session(library, read(net), job, threads=2, logits=out)
    while session.advance(8):
        pass
    session.close()
    return out


def random_net(name):
    net = nets.build(CONFIGS[name](), seed=1)
    with torch.no_grad():
        for parameter in net.parameters():  # transformers starts biases at 0 and gains at 1, which would hide them
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    return net


def texts(net, stories=9, limit=37):
    return np.random.default_rng(0).integers(1, net.config.vocab_size, (stories, limit)).astype(np.int32)


def truth(net, tokens):
    with torch.no_grad():
        inputs = np.concatenate([np.zeros((len(tokens), 1), np.int64), tokens[:, :-1]], axis=1)
        return net(input_ids=torch.from_numpy(inputs)).logits.numpy()


@pytest.mark.parametrize("name", list(CONFIGS))
def test_both_engines_give_the_logits_of_transformers(name):
    net = random_net(name)
    tokens = texts(net)
    expected = truth(net, tokens)
    close = {"rtol": 0, "atol": 2e-5 * float(expected.std()) * 10}
    job = Job(draws=Draws(), key=0, stories=9, limit=37, end=0, slots=9)
    found = wave.logits_of(net, job, tokens)
    np.testing.assert_allclose(found, expected, **close)
    masked = wave.logits_of(net, job, tokens, shapes=wave.Shapes(span=16))
    np.testing.assert_allclose(masked, found, rtol=0, atol=1e-5 * max(1.0, float(expected.std())))
    if (library := native.build().library) is not None:
        np.testing.assert_allclose(forced_logits(library, net, tokens), expected, **close)
        apart = forced_logits(library, net, tokens, dtype="bfloat16") - expected
        assert np.sqrt(np.square(apart).mean()) < 0.02 * expected.std()


@needs_native
def test_the_code_is_right_without_wide_vectors(tmp_path):
    """The same source for the least of x86 processors; skipped on others."""
    made = tmp_path / "decode.so"
    try:
        native.compile_to(made, ("-O1", "-march=x86-64", "-std=c++17", "-pthread", "-shared", "-fPIC"))
    except subprocess.CalledProcessError:
        pytest.skip("this compiler does not know the flag")
    library = native.load(made)
    for name in ("gpt2", "grouped queries"):
        net = random_net(name)
        tokens = texts(net)
        expected = truth(net, tokens)
        np.testing.assert_allclose(forced_logits(library, net, tokens), expected, rtol=0, atol=2e-4 * float(expected.std()))
        apart = forced_logits(library, net, tokens, dtype="bfloat16") - expected
        assert np.sqrt(np.square(apart).mean()) < 0.02 * expected.std()


@pytest.fixture
def unbuilt(monkeypatch):
    native.build.cache_clear()
    yield monkeypatch
    native.build.cache_clear()


def test_without_a_compiler_pytorch_does_it_and_says_so(unbuilt, model):
    unbuilt.setenv("PATH", "")
    unbuilt.delenv("CXX", raising=False)
    with pytest.warns(UserWarning, match="no C\\+\\+ compiler was found"):
        rows = Ancestral().sample(model, 20, world=None, seed=Seed(1))
    expected = Ancestral(engine="torch").sample(model, 20, world=None, seed=Seed(1))
    assert np.array_equal(rows["tokens"].values, expected["tokens"].values)
    with pytest.raises(StudyError, match="'native' cannot be had: no C"):
        Ancestral(engine="native").sample(model, 20, world=None, seed=Seed(1))


def test_a_compiler_that_fails_is_told(unbuilt, tmp_path):
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho no such flag >&2\nexit 1\n")
    broken.chmod(0o755)
    unbuilt.setenv("CXX", str(broken))
    unbuilt.setenv("REFEED_CACHE", str(tmp_path / "cache"))
    assert native.build().problem == f"{broken} failed: no such flag"
    assert not list((tmp_path / "cache").iterdir())


def test_native_code_can_be_switched_off(unbuilt, model):
    unbuilt.setenv("REFEED_NATIVE", "0")
    assert len(Ancestral().sample(model, 5, world=None, seed=Seed(1))) == 5
    with pytest.raises(StudyError, match="REFEED_NATIVE is 0"):
        Ancestral(engine="native").sample(model, 5, world=None, seed=Seed(1))


@needs_native
def test_memory_is_fixed_and_as_stated(model):
    network = read(model.net)
    for dtype, number_bytes in (("float32", 4), ("bfloat16", 2)):
        job = Job(draws=Draws(), key=0, stories=100, limit=64, end=model.tokenizer.end, slots=32, dtype=dtype)
        session = native.Session(native.build().library, network, job, threads=2)
        before = session.cache_bytes
        while session.advance(10):
            assert session.cache_bytes == before
        session.close()
        assert 32 * network.cache_bytes(64, number_bytes) <= before <= 32 * network.cache_bytes(80, number_bytes)


def test_other_causal_models_go_through_their_own_forward(model):
    from transformers import GPTNeoXConfig

    config = GPTNeoXConfig(
        vocab_size=model.tokenizer.size, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=30, bos_token_id=model.tokenizer.end, eos_token_id=model.tokenizer.end,
    )  # fmt: skip
    other = type(model)(net=nets.build(config, seed=0), tokenizer=model.tokenizer)
    assert read(other.net) is None
    rows = Ancestral(batch=7, temperature=1.5).sample(other, 20, world=None, seed=Seed(1))["tokens"]
    again = Ancestral(batch=20, temperature=1.5).sample(other, 20, world=None, seed=Seed(1))["tokens"]
    assert np.array_equal(rows.values, again.values)
    assert np.isfinite(other.log_prob(rows)).all()
    with pytest.raises(StudyError, match="neither a GPT-2 nor a Llama"):
        Ancestral(engine="native").sample(other, 5, world=None, seed=Seed(1))

"""Training computes what transformers computes, in less time; and a killed fit ends as the uninterrupted one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from refeed.core import checkpoints, progress
from refeed.core.rows import Ragged
from refeed.core.seeds import Seed
from refeed.families.language import nets, packed_nets
from refeed.families.language.layout import TrainingText
from refeed.families.language.learner import Llama
from refeed.families.language.source import stories_of
from refeed.families.language.training import gradients, num_weights

END = 0


def text(lengths=(5, 30, 17, 17, 64, 2, 29, 12), *, weights=(1.0,), context=64, seed=0):
    rng = np.random.default_rng(seed)
    parts = [Ragged.of([[*rng.integers(1, 50, n - 1), END] for n in lengths], np.uint16) for _ in weights]
    return TrainingText(list(zip(parts, weights, strict=True)), context=context, end=END)


def batches(stories, *, max_cells=10_000):
    (pieces,) = stories.steps(1, batch_tokens=10**9, batch_stories=None, seed=Seed(0))
    return stories.batches(pieces, max_cells=max_cells)


def net_of(kind):
    options = {"vocabulary": 50, "end": END, "context": 64, "width": 32, "layers": 2, "heads": 4, "feed_forward": 48}
    net = nets.build(getattr(nets, kind)(**options, deviation=0.3, **({"tied": False} if kind == "llama" else {})), seed=1)
    with torch.no_grad():
        for name, parameter in net.named_parameters():  # biases and norms too: none may be 0 or 1
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))), alpha=0.1)
    return net.train()


def by_transformers(net, parts, *, autocast=False):
    """The mean nats a token and its gradient, each story alone through transformers' own class."""
    net.zero_grad()
    total, num_tokens = 0.0, sum(batch.num_tokens for batch in parts)
    for batch in parts:
        for first, number, length in batch.groups:
            for cell in range(first, first + number * length, length):
                size = int((batch.weights[cell : cell + length] > 0).sum())
                ids, targets = (torch.from_numpy(a[cell : cell + size])[None] for a in (batch.inputs, batch.targets))
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                    logits = net(input_ids=ids, use_cache=False).logits
                nats = torch.nn.functional.cross_entropy(logits[0].float(), targets[0], reduction="none")
                loss = (nats * torch.from_numpy(batch.weights[cell : cell + size])).sum() / num_tokens
                loss.backward()
                total += loss.item()
    return total, gradient_of(net)


def gradient_of(net):
    gradient = torch.cat([parameter.grad.flatten() for parameter in net.parameters()])
    net.zero_grad()
    return gradient


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("weights", [(1.0,), (3.0, 1.0)])
def test_loss_and_gradient_are_those_of_transformers(kind, weights):
    net, parts = net_of(kind), batches(text(weights=weights))
    assert packed_nets.is_known(net)
    expected, gradient = by_transformers(net, parts)
    loss = gradients(net, parts, dtype=torch.float32)
    found = gradient_of(net)
    assert loss.item() == pytest.approx(expected, rel=2e-6)
    assert (found - gradient).norm() < 2e-6 * gradient.norm()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_bfloat16_is_as_near_to_float32_as_that_of_transformers(kind):
    net, parts = net_of(kind), batches(text(lengths=[40] * 12))
    exact, gradient = by_transformers(net, parts)
    theirs, their_gradient = by_transformers(net, parts, autocast=True)
    ours = gradients(net, parts, dtype=torch.bfloat16).item()
    our_gradient = gradient_of(net)
    assert abs(ours - exact) < max(2 * abs(theirs - exact), 5e-3 * exact)
    assert (our_gradient - gradient).norm() < 1.5 * (their_gradient - gradient).norm()
    assert (our_gradient - gradient).norm() > 0


def same(found, expected):
    """Loss and gradient."""
    assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-6)
    assert torch.allclose(found[1], expected[1], atol=1e-6)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_parts_of_a_step_add_up_to_the_step(kind):
    net, stories = net_of(kind), text()
    whole = gradients(net, batches(stories), dtype=torch.float32), gradient_of(net)
    parts = batches(stories, max_cells=60)
    assert len(parts) == 3
    summed = gradients(net, parts, dtype=torch.float32), gradient_of(net)
    same(summed, whole)


@pytest.mark.parametrize(
    ("kind", "limits"),
    [
        pytest.param("gpt2", {"LOGIT_ROWS": 50, "SOFTMAX_ROWS": 7}, id="long rows of logits in chunks"),
        pytest.param("llama", {"LONGEST": 16}, id="stories longer than attention keeps"),
    ],
)
def test_how_large_a_piece_is_changes_no_gradient(kind, limits, monkeypatch):
    net, parts = net_of(kind), batches(text())
    whole = gradients(net, parts, dtype=torch.float32), gradient_of(net)
    for name, limit in limits.items():
        monkeypatch.setattr(packed_nets, name, limit)
    same((gradients(net, parts, dtype=torch.float32), gradient_of(net)), whole)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_another_architecture_is_computed_by_its_own_class(precision):
    from transformers import GPTNeoXConfig

    config = GPTNeoXConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, bos_token_id=END, eos_token_id=END, hidden_dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    net, parts = nets.build(config, seed=1).train(), batches(text())
    assert not packed_nets.is_known(net)
    expected, gradient = by_transformers(net, parts)
    loss = gradients(net, parts, dtype=precision)
    assert loss.item() == pytest.approx(expected, rel=1e-5 if precision == torch.float32 else 1e-2)
    assert (gradient_of(net) - gradient).norm() < (1e-4 if precision == torch.float32 else 5e-2) * gradient.norm()


def test_a_token_is_multiplied_by_all_weights_but_tables_that_are_looked_up():
    gpt2, llama = net_of("gpt2"), net_of("llama")
    assert num_weights(gpt2) == sum(p.numel() for p in gpt2.parameters()) - 64 * 32  # positions
    assert num_weights(llama) == sum(p.numel() for p in llama.parameters()) - 50 * 32


def test_bfloat16_learns_as_float32_does(small, data, world):
    losses = []
    for precision in ("float32", "bfloat16"):
        model = Llama(**small | {"epochs": 3, "precision": precision}).fit(data, world=world, seed=Seed(0))
        stories = stories_of(world.test)
        assert next(model.net.parameters()).dtype == torch.float32
        losses.append(-model.log_prob(stories).sum() / len(stories.values))
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0]


CHILD = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from conftest import data_of
from refeed.core import checkpoints, progress
from refeed.core.seeds import Seed
from refeed.families.language.learner import Llama
from refeed.families.language.source import StoryGrammar
from pathlib import Path

checkpoints.SECONDS = 0.0
source = StoryGrammar(rows=150, test_rows=60)
world = source.draw(seed=Seed(0) / "source")
def tick(done, *rest):
    if done == 14:
        os.kill(os.getpid(), signal.SIGKILL)
with checkpoints.kept_in(Path({folder!r})), progress.listen(tick):
    Llama(**{options!r}).fit(data_of(source, world, (1.0,)), world=world, seed=Seed(0))
"""


def test_a_killed_fit_goes_on_to_the_same_bits(small, data, world, tmp_path):
    options = small | {"epochs": 2, "precision": "bfloat16"}
    whole = Llama(**options).fit(data, world=world, seed=Seed(0))
    code = CHILD.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "partial"), options=options)
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    (state,) = (tmp_path / "partial").glob("*.state")
    assert state.name.startswith("000000000013-")

    heard = []
    with checkpoints.kept_in(tmp_path / "partial"), progress.listen(lambda done, *_: heard.append(done)):
        resumed = Llama(**options).fit(data, world=world, seed=Seed(0))
    assert heard[0] == 14
    for name, tensor in whole.net.state_dict().items():
        assert torch.equal(tensor, resumed.net.state_dict()[name]), name


def test_a_damaged_state_is_not_used(tmp_path, caplog):
    with checkpoints.kept_in(tmp_path / "partial"):
        kept = checkpoints.Checkpoints()
        kept.keep(3, lambda path: path.write_bytes(b"first"))
        (state,) = (tmp_path / "partial").iterdir()
        assert checkpoints.Checkpoints().newest() == state
        state.write_bytes(b"worst")
        assert checkpoints.Checkpoints().newest() is None
        assert "does not match its checksum" in caplog.text
        kept.keep(4, lambda path: path.write_bytes(b"second"))
        assert [path.read_bytes() for path in (tmp_path / "partial").iterdir()] == [b"second"]
    assert checkpoints.Checkpoints().newest() is None
    assert not checkpoints.Checkpoints().due

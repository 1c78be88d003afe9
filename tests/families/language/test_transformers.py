"""A fit is a function of its data and seed; its probabilities are those of the saved network in transformers."""

from __future__ import annotations

import logging
import re

import numpy as np
import pytest
import torch

from refeed.core import progress
from refeed.core.errors import Stopped, StudyError
from refeed.core.rows import Ragged
from refeed.core.seeds import Seed
from refeed.families.language.learner import GPT2, Llama
from refeed.families.language.source import stories_of
from refeed.families.language.training import schedule


@pytest.fixture
def quick(small):
    return small | {"steps": 6}


def weights(model):
    return {name: tensor.clone() for name, tensor in model.net.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("kind", [GPT2, Llama])
def test_a_fit_depends_on_its_seed_alone_and_leaves_the_global_generators(kind, quick, data, world):
    torch.manual_seed(1)
    np.random.seed(1)
    before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    first = weights(kind(**quick).fit(data, world=world, seed=Seed(0)))
    assert torch.equal(before, torch.random.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()
    torch.manual_seed(2)
    assert same(first, weights(kind(**quick).fit(data, world=world, seed=Seed(0))))
    assert not same(first, weights(kind(**quick).fit(data, world=world, seed=Seed(1))))


def test_training_lowers_the_loss_below_that_of_words_alone(model, world):
    stories = stories_of(world.test)
    counts = np.bincount(stories.values, minlength=world.tokenizer.size)
    unigram = -(counts * np.log(np.maximum(counts, 1) / counts.sum())).sum() / counts.sum()
    assert -model.log_prob(stories).sum() / len(stories.values) < 0.7 * unigram


def test_log_prob_is_the_loss_that_transformers_computes(model, world):
    stories = stories_of(world.test)
    expected = []
    for story in stories:
        ids = torch.tensor([[world.tokenizer.end, *story.tolist()]])
        with torch.no_grad():
            expected.append(-model.net(input_ids=ids[:, : model.context + 1], labels=ids).loss.item() * len(story))
    assert model.log_prob(stories) == pytest.approx(expected, rel=1e-5)
    assert model.log_prob(stories, batch_tokens=100) == pytest.approx(expected, rel=1e-5)


def test_a_story_longer_than_the_context_is_read_in_windows(model, world):
    long = Ragged.of([np.concatenate([row[:-1] for row in stories_of(world.test)])[:200]], np.uint16)
    inputs = [world.tokenizer.end, *long[0].tolist()]
    terms = []
    for first, scored in ((0, 80), (40, 40), (80, 40), (120, 40)):
        with torch.no_grad():
            logits = model.net(input_ids=torch.tensor([inputs[first : first + 80]])).logits[0].log_softmax(-1)
        terms += [logits[place, long[0][first + place]].item() for place in range(80 - scored, 80)]
    assert len(terms) == 200
    assert model.log_prob(long)[0] == pytest.approx(sum(terms), rel=1e-5)


def test_save_and_load_keep_every_bit_and_transformers_opens_it(model, learner, world, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as verbosity

    model.save(tmp_path)
    again = learner.load(tmp_path)
    assert same(weights(model), weights(again))
    stories = stories_of(world.test)
    assert np.array_equal(model.log_prob(stories), again.log_prob(stories))
    assert again.tokenizer.to_json() == model.tokenizer.to_json()
    assert again.tokenizer.size == world.tokenizer.size

    verbosity.disable_progress_bar()
    verbosity.set_verbosity(logging.ERROR)
    opened = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert same(weights(model), opened.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = world.tokenizer.decode(stories[0])
    assert tokenizer(text).input_ids == stories[0][:-1].tolist()
    assert tokenizer.eos_token_id == world.tokenizer.end


def test_a_weight_counts_as_so_many_rows(small, weighted, world):
    """Weights (2, 0) train on the first half; the loss is scaled by their mean."""
    learner = Llama(**small | {"steps": 40})
    halves = [stories_of(world.train).take(index) for index in np.array_split(np.arange(len(world.train)), 2)]
    for favoured in (0, 1):
        parts = weighted(2.0, 0.0) if favoured == 0 else weighted(0.0, 2.0)
        model = learner.fit(parts, world=world, seed=Seed(3))
        losses = [-model.log_prob(half).sum() / len(half.values) for half in halves]
        assert losses[favoured] < losses[1 - favoured]


def test_a_fit_goes_on_from_a_model(quick, model, learner, data, world):
    more = type(learner)(**quick | {"learning_rate": 1e-9, "weight_decay": 0.0}).fit(data, world=world, seed=Seed(5), start=model)
    stories = stories_of(world.test)
    assert more.log_prob(stories) == pytest.approx(model.log_prob(stories), rel=1e-4)


def test_a_diverging_fit_is_a_named_outcome(small, data, world):
    with pytest.raises(Stopped, match="diverged"):
        Llama(**small | {"learning_rate": 1e30, "steps": 20, "warm_up": 0.0}).fit(data, world=world, seed=Seed(0))


def test_progress_is_told_to_whoever_listens(quick, data, world):
    heard = []
    with progress.listen(lambda *told: heard.append(told)):
        Llama(**quick).fit(data, world=world, seed=Seed(0))
    Llama(**quick).fit(data, world=world, seed=Seed(0))
    assert [told[:3] for told in heard] == [(step, 6, "steps") for step in range(1, 7)]
    assert all(re.fullmatch(r"loss \d\.\d{3}, [\d,]+ tokens/s, \d+% MFU", told[3]) for told in heard)


@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_the_learning_rate_rises_and_falls(shape):
    rates = [schedule(step, 100, warm_up=0.1, shape=shape) for step in range(100)]
    assert rates[55] == pytest.approx(0.5)
    assert max(rates) == rates[9] == 1.0
    assert rates[0] == 0.1
    assert rates == sorted(rates[:10]) + sorted(rates[10:], reverse=True)
    assert schedule(0, 1, warm_up=0.5) > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 0},
        {"width": 30, "heads": 4},
        {"epochs": 0},
        {"steps": 0},
        {"context": 1},
        {"warm_up": 1.0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"clip": -1.0},
        {"weight_decay": -0.1},
        {"batch_tokens": 0},
        {"initial_deviation": 0.0},
        {"batch_stories": 0},
        {"micro_tokens": 0},
        {"schedule": "step"},
        {"precision": "float16"},
    ],
)
@pytest.mark.parametrize("kind", [GPT2, Llama])
def test_impossible_settings_are_refused(kind, wrong):
    with pytest.raises(StudyError, match=next(iter(wrong))):
        kind(**wrong)

"""Samples follow the model's own distribution, each story by its own random numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from refeed.core.errors import Stopped, StudyError
from refeed.core.seeds import Seed
from refeed.families.language.exhibit import stories as exhibit
from refeed.families.language.sampler import Ancestral, choose, uniform
from refeed.families.language.source import stories_of


def drawn(model, num_rows, *, seed=7, **options):
    return stories_of(Ancestral(**options).sample(model, num_rows, world=None, seed=Seed(seed)))


def test_rows_are_stories_that_end_or_reach_the_limit(model):
    rows = Ancestral().sample(model, 60, world=None, seed=Seed(0))
    assert rows.names == ("tokens",)
    assert stories_of(rows).values.dtype == np.uint16
    for story in stories_of(rows):
        assert story[-1] == model.tokenizer.end or len(story) == model.context
        assert model.tokenizer.end not in story[:-1]
    cut = drawn(model, 60, max_tokens=9)
    assert cut.lengths.max() == 9
    whole = drawn(model, 60)
    assert all(np.array_equal(a, b[:9]) for a, b in zip(cut, whole, strict=True))


def agree(model, rows, others, *, seed=7):
    """Equal stories, but for those whose random number lies on the boundary between two tokens, to 1e-5."""
    for story, (row, other) in enumerate(zip(rows, others, strict=False)):
        if np.array_equal(row, other):
            continue
        place = next(place for place, (a, b) in enumerate(zip(row, other, strict=False)) if a != b)
        with torch.no_grad():
            logits = model.net(input_ids=torch.tensor([[model.tokenizer.end, *row[:place].tolist()]])).logits[0, -1]
        u = uniform(Seed(seed).integer(64), np.array([story]), place)
        assert np.abs(logits.double().softmax(-1).cumsum(-1).numpy() - u).min() < 1e-5


def test_a_story_does_not_depend_on_how_many_are_sampled_or_beside_which(model):
    """Logits differ in the last bit between batch shapes, so a draw that lies on a boundary, one in a million, may differ."""
    whole = drawn(model, 120)
    for num_rows, batch in ((12, 1), (120, 7), (120, 50)):
        agree(model, drawn(model, num_rows, batch=batch), whole)
    first = drawn(model, 40)
    agree(model, first, whole)
    assert np.array_equal(drawn(model, 40).values, first.values)
    assert drawn(model, 40, seed=8).values.tolist() != first.values.tolist()


def test_sampling_leaves_the_global_generators(model):
    before = torch.random.get_rng_state()
    drawn(model, 5)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.3])
def test_first_and_later_tokens_follow_the_softmax(model, temperature):
    """Chi-square at the first token and, given the commonest first four, at the fifth; p > 1e-4 each: 12 tests, 1 in 800."""
    rows = drawn(model, 6000, temperature=temperature, max_tokens=5)
    matrix = np.stack([row for row in rows if len(row) == 5])
    prefixes, counts = np.unique(matrix[:, :4], axis=0, return_counts=True)
    prefix = prefixes[counts.argmax()]
    first = np.array([row[0] for row in rows])
    fifth = matrix[(matrix[:, :4] == prefix).all(axis=1), 4]
    assert len(fifth) > 100
    end = model.tokenizer.end
    for given, seen in (([end], first), ([end, *prefix.tolist()], fifth)):
        with torch.no_grad():
            logits = model.net(input_ids=torch.tensor([given])).logits[0, -1].double()
        expected = (logits / temperature).softmax(-1).numpy() * len(seen)
        observed = np.bincount(seen, minlength=len(expected))
        large = expected >= 5
        observed = np.append(observed[large], observed[~large].sum())
        expected = np.append(expected[large], expected[~large].sum())
        if len(expected) > 1:
            assert stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-4


def test_a_low_temperature_is_less_diverse(model):
    assert len(np.unique(drawn(model, 100, temperature=0.2).values)) < len(np.unique(drawn(model, 100).values))


def test_random_numbers_are_uniform_and_apart():
    """Kolmogorov-Smirnov and serial correlation: three tests at p > 1e-5."""
    story = np.arange(300)
    u = np.stack([uniform(12345, story, position) for position in range(100)], axis=1)
    assert ((u >= 0) & (u < 1)).all()
    assert len(np.unique(u)) == u.size
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-5
    for a, b in ((u[:, :-1], u[:, 1:]), (u[:-1], u[1:])):
        assert stats.pearsonr(a.ravel(), b.ravel()).pvalue > 1e-5
    assert not np.array_equal(u[:, 0], uniform(12346, story, 0))


def test_a_token_without_probability_is_never_chosen():
    logits = torch.tensor([[0.0, -float("inf"), 1.0, -float("inf")]]).repeat(3, 1)
    assert choose(logits, np.array([0.0, 0.5, 1 - 2.0**-53]), temperature=1.0).tolist() == [0, 2, 2]
    with pytest.raises(Stopped, match="non-finite"):
        choose(torch.full((1, 4), float("nan")), np.array([0.5]), temperature=1.0)


def test_impossible_settings_are_refused(model):
    with pytest.raises(StudyError, match="greedy"):
        Ancestral(temperature=0.0)
    for wrong in ({"temperature": -1.0}, {"temperature": float("nan")}, {"max_tokens": 0}, {"batch": 0}):
        with pytest.raises(StudyError):
            Ancestral(**wrong)
    with pytest.raises(StudyError, match=r"learner\.context"):
        Ancestral(max_tokens=81).sample(model, 1, world=None, seed=Seed(0))


def test_no_rows_are_no_rows(model, world):
    assert len(Ancestral().sample(model, 0, world=None, seed=Seed(0))) == 0


def test_exhibit_shows_stories_as_people_write_them(world, samples):
    shown = exhibit(world.train, world=world, count=2)
    assert len(shown) == 2
    assert shown[0].startswith("Once there was a ")
    assert shown[0].endswith(".")
    assert len(exhibit(samples, world=world, count=1000)) == len(samples)

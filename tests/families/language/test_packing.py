"""Laying stories end to end loses, cuts and mixes nothing."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from refeed.core.rows import Ragged
from refeed.core.seeds import Seed
from refeed.families.language.layout import WASTE, TrainingText, batches_by_length, by_length, padded
from refeed.families.language.model import windows

END = 0


def stories(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return Ragged.of([[*rng.integers(1, 50, n - 1), END] for n in lengths], np.uint16)


def batches(text, num_steps, *, batch_tokens=100, batch_stories=None, max_cells=1000, seed=0, first=0):
    for pieces in text.steps(num_steps, batch_tokens=batch_tokens, batch_stories=batch_stories, seed=Seed(seed), first=first):
        yield from text.batches(pieces, max_cells=max_cells)


def seen(batches):
    """Each story of the batches as (input, target) pairs."""
    for batch in batches:
        for first, number, length in batch.groups:
            for cell in range(first, first + number * length, length):
                real = batch.weights[cell : cell + length] > 0
                size = int(real.sum())
                assert real[:size].all()
                inputs, targets = batch.inputs[cell : cell + size], batch.targets[cell : cell + size]
                yield list(zip(inputs.tolist(), targets.tolist(), strict=True))


@pytest.mark.parametrize("context", [5, 16, 64])
def test_an_epoch_holds_every_token_once_with_what_came_before_it(context):
    rows = stories(np.random.default_rng(1).integers(1, 40, 60))
    text = TrainingText([(rows.take(np.arange(25)), 1.0), (rows.take(np.arange(25, 60)), 1.0)], context=context, end=END)
    steps = text.steps_per_epoch(batch_tokens=100, batch_stories=None)
    assert steps == round(len(rows.values) / 100)
    found = list(seen(batches(text, steps)))
    assert max(map(len, found)) <= context
    expected = [pair for row in rows for pair in zip([END, *row[:-1].tolist()], row.tolist(), strict=True)]
    assert sorted(pair for piece in found for pair in piece) == sorted(expected)


def test_steps_hold_as_many_tokens_as_asked_for():
    rows = stories(np.random.default_rng(2).integers(20, 60, 400))
    text = TrainingText([(rows, 1.0)], context=64, end=END)
    steps = text.steps_per_epoch(batch_tokens=500, batch_stories=None)
    sizes = [batch.num_tokens for batch in batches(text, steps, batch_tokens=500)]
    assert len(sizes) == steps
    assert abs(np.array(sizes) - 500).max() <= 60


@pytest.mark.parametrize("lengths", [[50, 1, 1, 1, 1], [1, 1, 1, 50], [30] * 3, [1]])
def test_no_step_is_empty_however_few_tokens_are_asked_for(lengths):
    text = TrainingText([(stories(lengths), 1.0)], context=64, end=END)
    steps = text.steps_per_epoch(batch_tokens=3, batch_stories=None)
    assert steps <= len(lengths)
    assert sum(map(len, seen(batches(text, steps, batch_tokens=3)))) == sum(lengths)
    assert len(list(text.steps(steps, batch_tokens=3, batch_stories=None, seed=Seed(0)))) == steps


def test_a_step_can_be_so_many_stories():
    rows = stories(np.random.default_rng(2).integers(2, 60, 70))
    text = TrainingText([(rows, 1.0)], context=64, end=END)
    assert text.steps_per_epoch(batch_tokens=1, batch_stories=32) == 3
    assert [len(pieces) for pieces in text.steps(3, batch_tokens=1, batch_stories=32, seed=Seed(0))] == [32, 32, 6]


def test_each_epoch_has_its_own_order_and_any_step_can_be_gone_on_from():
    text = TrainingText([(stories([9] * 40), 1.0)], context=10, end=END)
    assert text.steps_per_epoch(batch_tokens=60, batch_stories=None) == 6
    all_steps = [pieces.tolist() for pieces in text.steps(15, batch_tokens=60, batch_stories=None, seed=Seed(0))]
    assert len(all_steps) == 15
    assert sorted(chain(*all_steps[:6])) == sorted(chain(*all_steps[6:12])) == list(range(40))
    assert all_steps[0] != all_steps[6]
    for first in (1, 6, 8, 14):
        later = text.steps(15, batch_tokens=60, batch_stories=None, seed=Seed(0), first=first)
        assert [pieces.tolist() for pieces in later] == all_steps[first:]


def test_a_large_step_is_done_in_parts():
    text = TrainingText([(stories([9] * 40), 1.0)], context=10, end=END)
    (pieces,) = text.steps(1, batch_tokens=360, batch_stories=None, seed=Seed(0))
    parts = text.batches(pieces, max_cells=100)
    assert len(parts) == 4
    assert sum(part.num_tokens for part in parts) == 360
    assert max(len(part.inputs) for part in parts) <= 100 + 10


def test_weights_have_mean_one_over_tokens():
    text = TrainingText([(stories([10]), 3.0), (stories([20]), 1.0)], context=32, end=END)
    (batch,) = batches(text, 1)
    assert batch.weights.sum() == pytest.approx(30)
    assert np.unique(batch.weights[batch.weights > 0]) == pytest.approx([0.6, 1.8])


def test_stories_are_not_copied_before_they_are_used():
    rows = stories([20] * 50)
    text = TrainingText([(rows, 1.0)], context=32, end=END)
    assert text._parts[0].values is rows.values


def test_groups_waste_little():
    lengths = -np.sort(-np.random.default_rng(2).integers(20, 400, 60))
    groups = by_length(lengths)
    assert sum(number for _, number, _ in groups) == 60
    at = 0
    for first, number, length in groups:
        assert first == sum(n * t for f, n, t in groups if f < first)
        assert length == lengths[at]
        assert 0 <= number * length - lengths[at : at + number].sum() <= WASTE
        at += number


def test_batches_by_length_hold_everything_once():
    lengths = np.random.default_rng(3).integers(1, 90, 500)
    batches = batches_by_length(lengths, max_tokens=1000)
    assert sorted(np.concatenate(batches)) == list(range(500))
    assert max(len(batch) * lengths[batch].max() for batch in batches) <= 1000
    assert batches_by_length(np.array([5000]), max_tokens=10)[0].tolist() == [0]


@pytest.mark.parametrize("context", [2, 3, 8, 100])
def test_windows_score_every_token_once(context):
    lengths = np.array([1, 2, 7, 8, 9, 30, 100])
    story, first, length, fresh = windows(lengths, context)
    assert (length <= context).all()
    assert (np.bincount(story, weights=fresh) == lengths).all()
    ends = {(s, f + n) for s, f, n in zip(story, first, length, strict=True)}
    assert all((s, n) in ends for s, n in enumerate(lengths))


def test_padding():
    assert padded(stories([2, 4]), fill=-1).shape == (2, 4)
    assert padded(stories([2, 4]), fill=-1)[0, 2:].tolist() == [-1, -1]

"""Packing loses, cuts and mixes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from refeed.core.rows import Ragged
from refeed.core.seeds import Seed
from refeed.families.language.layout import Packed, batches_by_length, pack, padded
from refeed.families.language.model import windows

END = 0


def stories(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return Ragged.of([[*rng.integers(1, 50, n - 1), END] for n in lengths], np.uint16)


@pytest.mark.parametrize("context", [5, 16, 64])
def test_an_epoch_holds_every_token_once_with_what_came_before_it(context):
    rows = stories(np.random.default_rng(1).integers(1, 40, 60))
    packed = Packed(rows, np.ones(60), context=context, end=END)
    seen = []
    for batch, _, _ in packed.batches(1, None, 100, Seed(0)):
        real = batch.targets >= 0
        assert batch.num_tokens == real.sum()
        assert (batch.weights[~real] == 0).all()
        assert (batch.weights[real] == 1).all()
        seen += list(zip(batch.inputs[real].tolist(), batch.targets[real].tolist(), strict=True))
    expected = [pair for row in rows for pair in zip([END, *row[:-1].tolist()], row.tolist(), strict=True)]
    assert sorted(seen) == sorted(expected)


def test_attention_stays_in_the_story_and_positions_start_anew():
    packed = Packed(stories([7, 5, 9, 3, 8]), np.ones(5), context=12, end=END)
    for batch, _, _ in packed.batches(1, None, 48, Seed(0)):
        mask = batch.mask()[:, 0]
        assert not np.triu(mask, 1).any()
        for row, story, position in zip(mask, batch.story, batch.positions, strict=True):
            real = story > 0
            assert (row.sum(axis=1)[real] == position[real] + 1).all()


def test_each_epoch_has_its_own_order_and_steps_can_be_fixed():
    packed = Packed(stories([9] * 40), np.ones(40), context=10, end=END)
    two = [batch for batch, _, _ in packed.batches(2, None, 60, Seed(0))]
    half = len(two) // 2
    assert not np.array_equal(two[0].targets, two[half].targets)
    fixed = list(packed.batches(None, 33, 60, Seed(0)))
    assert [step for _, step, _ in fixed] == list(range(33))
    assert {num for _, _, num in fixed} == {33}
    assert np.array_equal(fixed[0][0].targets, two[0].targets)


def test_weights_have_mean_one_over_tokens():
    packed = Packed(stories([10, 20]), np.array([3.0, 1.0]), context=32, end=END)
    (batch, _, _) = next(packed.batches(1, None, 64, Seed(0)))
    assert batch.weights.sum() == pytest.approx(30)
    assert np.unique(batch.weights[batch.weights > 0]) == pytest.approx([0.6, 1.8])


def test_first_fit_wastes_little():
    lengths = np.random.default_rng(2).integers(20, 80, 2000).tolist()
    to_block, at, num_blocks = pack(lengths, block=160)
    assert sum(lengths) > 0.93 * 160 * num_blocks
    assert (at + lengths <= 160).all()
    assert set(to_block) == set(range(num_blocks))


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

"""Depth, worth and unique rows against closed forms, and against a loop that carries every row's share along."""

import numpy as np
import pytest

from refeed import policies
from refeed.core.ancestry import Ancestry, real_weight, unique_rows
from refeed.core.loop import turns
from refeed.core.shards import Part, Pool

GENERATIONS = 6
HARMONIC = [sum(1 / k for k in range(1, g + 1)) for g in range(1, GENERATIONS + 1)]
SQUARES = [sum(1 / k**2 for k in range(1, g + 1)) for g in range(1, GENERATIONS + 1)]


def walk(lineage, policy):
    found = list(turns(lineage(policy, rows=40), GENERATIONS))
    return found, Ancestry(found)


@pytest.mark.parametrize(
    ("policy", "worth", "depth"),
    [
        (policies.replace(), [40 / g for g in range(1, 7)], [0, 1, 2, 3, 4, 5]),
        (policies.accumulate(), [40 / s for s in SQUARES], None),
        (policies.replace_multiple(), [40 / h for h in HARMONIC], [0, 1, 2, 3, 4, 5]),
        (policies.real_only(), [40] * 6, [0] * 6),
    ],
)
def test_worth_and_depth_follow_the_closed_forms(lineage, policy, worth, depth):
    found, ancestry = walk(lineage, policy)
    assert [ancestry.effective_rows(turn.train) for turn in found] == pytest.approx(worth)
    if depth is not None:
        assert [ancestry.depth(turn.train) for turn in found] == pytest.approx(depth)


def test_depth_of_accumulate_grows_like_the_harmonic_numbers(lineage):
    found, ancestry = walk(lineage, policies.accumulate())
    assert [ancestry.depth(turn.train) for turn in found] == pytest.approx([h - 1 for h in HARMONIC])


@pytest.mark.parametrize(
    "policy", [policies.accumulate_subsample(), policies.reservoir(), policies.fixed_real(), policies.weighted_fresh_real()]
)
def test_worth_is_one_over_the_sum_of_squared_shares_of_every_row(lineage, policy):
    """The same by brute force: a vector over all rows ever born for every model, built forwards."""
    found, ancestry = walk(lineage, policy)
    columns, shares, depths = {}, {}, {}
    for turn in found:
        for part in turn.train:
            columns[part.shard.digest] = part.shard.num_rows
    starts, total = {}, 0
    for digest, size in columns.items():
        starts[digest], total = total, total + size
    for turn in found:
        vector, depth, weight = np.zeros(total), 0.0, 0.0
        for part in turn.train:
            index = np.arange(part.shard.num_rows) if part.index is None else part.index
            vector[starts[part.shard.digest] + index] += part.weight
            model = part.shard.origin.model
            if model is not None:
                vector += part.weight * len(index) * shares[model]
            depth += part.weight * len(index) * (0 if model is None else 1 + depths[model])
            weight += part.weight * len(index)
        shares[turn.model.digest], depths[turn.model.digest] = vector / weight, depth / weight
        assert ancestry.effective_rows(turn.train) == pytest.approx(1 / ((vector / weight) ** 2).sum())
        assert ancestry.depth(turn.train) == pytest.approx(depth / weight)


def test_rows_named_twice_count_once(lineage):
    shard = next(iter(turns(lineage(policies.replace(), rows=10), 1))).fresh
    assert unique_rows(Pool([Part(shard), Part(shard, np.array([1, 2]))])) == 10
    assert unique_rows(Pool([Part(shard, np.array([1, 2])), Part(shard, np.array([2, 5]))])) == 3
    assert unique_rows(Pool()) == 0


def test_real_weight_counts_weights_and_real_share_does_not(lineage):
    found, _ = walk(lineage, policies.fixed_real())
    pool = found[1].train
    real, fresh = pool.where(real=True), pool.where(real=False)
    weighted = real.weighted(3.0) + fresh
    assert weighted.real_share == pool.real_share
    assert real_weight(weighted) == pytest.approx(3 * real.num_rows / (3 * real.num_rows + fresh.num_rows))
    assert np.isnan(real_weight(Pool()))

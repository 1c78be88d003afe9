"""Every policy of the catalogue keeps every law of the kit, and does what its page says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refeed import catalogue, policies
from refeed.conformance import POLICY_LAWS, check_policy
from refeed.core.loop import turns
from refeed.core.shards import Pool
from refeed.policies import amounts, keeps, trains
from refeed.policies.parts import Composite


def preset(name):
    return catalogue.build(name, catalogue.policies(), "policy")


@pytest.mark.parametrize("law", POLICY_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", sorted(catalogue.POLICIES))
def test_every_policy_keeps_every_law(name, law):
    law(preset(name))


AMOUNTS = st.one_of(
    st.builds(amounts.Constant, rows=st.none() | st.integers(1, 50)),
    st.builds(amounts.Listed, rows=st.lists(st.integers(1, 30), min_size=1, max_size=4).map(tuple)),
    st.builds(amounts.Linear, step=st.floats(-1, 2)),
    st.builds(amounts.Geometric, ratio=st.floats(0.5, 1.5)),
    st.builds(amounts.AsPool, times=st.floats(0.1, 1.0)),
    st.builds(amounts.Budget, rows=st.integers(20, 100), generations=st.integers(1, 8)),
)
KEEPS = st.one_of(
    st.sampled_from([keeps.Everything(), keeps.Latest(), keeps.RealAndLatest(), keeps.MoreRealAndLatest(), keeps.OnlyReal()]),
    st.builds(keeps.Window, generations=st.integers(1, 4)),
    st.builds(keeps.Reservoir, rows=st.none() | st.integers(1, 60)),
    st.builds(keeps.PinnedReservoir, rows=st.none() | st.integers(1, 60)),
    st.builds(keeps.Strata, rows=st.none() | st.integers(1, 60)),
    st.builds(keeps.Forgetting, survival=st.floats(0, 1), pin_real=st.booleans()),
)
TRAINS = st.one_of(
    st.just(trains.All()),
    st.builds(trains.Subsample, rows=st.none() | st.integers(1, 60)),
    st.builds(trains.RealShare, share=st.floats(0.1, 1), rows=st.none() | st.integers(1, 60)),
    st.builds(trains.RealShareFloor, share=st.floats(0.1, 1)),
    st.builds(trains.RealWeight, weight=st.none() | st.floats(0.01, 0.99)),
)


@settings(max_examples=60)
@given(AMOUNTS, KEEPS, TRAINS)
def test_any_composition_keeps_every_law(sample, kept, train):
    assert set(check_policy(Composite(sample=sample, kept=kept, train=train)).values()) == {None}


def sets(lineage, policy, generations=6, rows=30):
    return [turn.train for turn in turns(lineage(policy, rows=rows), generations)]


@given(st.integers(1, 80), st.integers(0, 5))
@settings(max_examples=30)
def test_bounded_policies_keep_their_bound(rows, seed):
    from refeed.conformance.policy import _lineage

    for kept, bound in (
        (keeps.Reservoir(rows=rows), rows),
        (keeps.Strata(rows=rows), rows),
        (keeps.PinnedReservoir(rows=rows), rows + 30),
    ):
        lineage = _lineage(Composite(sample=amounts.Constant(), kept=kept, train=trains.All()), 30)
        for turn in list(turns(lineage, 6))[1:]:
            assert turn.train.num_rows <= bound


def test_a_reservoir_is_a_uniform_sample_of_all_rows_ever_offered(lineage):
    """Rows kept by generation after 5 x 30 rows: each of 5 generations expects 6 of 30. z = 4 over 400 seeds."""
    counts = np.zeros((400, 5))
    for seed in range(400):
        last = list(turns(lineage(policies.reservoir(), seed=seed), 5))[-1].train
        for generation, rows in last.rows_by_generation().items():
            counts[seed, generation] = rows
    assert (counts.sum(axis=1) == 30).all()
    variance = 30 * (30 / 150) * (120 / 150) * (120 / 149)  # hypergeometric
    assert np.abs(counts.mean(axis=0) - 6).max() < 4 * np.sqrt(variance / 400)
    assert np.abs(counts.var(axis=0, ddof=1) / variance - 1).max() < 4 * np.sqrt(2 / 399) * 1.1


def test_positions_in_a_reservoir_are_uniform(lineage):
    hits = np.zeros(30)
    for seed in range(400):
        for part in list(turns(lineage(policies.reservoir(), seed=seed), 4))[-1].train:
            if part.shard.origin.is_real and part.index is not None:
                hits[part.index] += 1
    expected = hits.sum() / 30
    assert ((hits - expected) ** 2 / expected).sum() < 67  # chi-square, 29 degrees of freedom, 1 - 1e-4


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (policies.fixed_real(), [{0: 30}, {0: 30, 1: 30}, {0: 30, 2: 30}]),
        (policies.fresh_real(), [{0: 30}, {0: 30, 1: 30}, {0: 30, 2: 30}]),
        (policies.growing(), [{0: 30}, {0: 30, 1: 30}, {0: 30, 1: 30, 2: 60}]),
        (policies.window(generations=2), [{0: 30}, {0: 30, 1: 30}, {1: 30, 2: 30}]),
        (policies.strata(), [{0: 30}, {0: 15, 1: 15}, {0: 10, 1: 10, 2: 10}]),
        (policies.pinned_reservoir(), [{0: 30}, {0: 30, 1: 30}, {0: 30, 1: 14, 2: 16}]),
        (policies.real_only(), [{0: 30}, {0: 30}, {0: 30}]),
        (policies.real_share(share=0.5), [{0: 30}, {0: 30, 1: 30}, {0: 30, 1: 14, 2: 16}]),
        (policies.real_share_floor(share=0.75), [{0: 30}, {0: 30, 1: 10}, {0: 30, 1: 4, 2: 6}]),
        (policies.forgetting(survival=0.0), [{0: 30}, {1: 30}, {2: 30}]),
        (policies.forgetting(survival=0.0, pin_real=True), [{0: 30}, {0: 30, 1: 30}, {0: 30, 2: 30}]),
    ],
)
def test_what_each_generation_learns_from(lineage, policy, expected):
    seen = [train.rows_by_generation() for train in sets(lineage, policy, 3)]
    random = {1, 2} if any(14 in rows.values() or 4 in rows.values() for rows in expected) else set()
    for rows, wanted in zip(seen, expected, strict=True):
        assert sum(rows.values()) == sum(wanted.values())
        assert {g: n for g, n in rows.items() if g not in random} == {g: n for g, n in wanted.items() if g not in random}


def test_fresh_real_rows_are_new_every_generation(lineage):
    digests = [part.shard.digest for train in sets(lineage, policies.fresh_real(), 5) for part in train.where(real=True)]
    assert len(set(digests)) == len(digests) == 5


def test_weights_sum_to_the_rows_and_give_the_real_ones_their_share(lineage):
    train = sets(lineage, policies.weighted_fresh_real(), 2)[1]
    real = sum(part.weight * part.num_rows for part in train.where(real=True))
    assert real / train.num_rows == pytest.approx((np.sqrt(5) - 1) / 2)
    assert sum(part.weight * part.num_rows for part in train) == pytest.approx(train.num_rows)


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        (amounts.Constant(rows=7), [7, 7, 7]),
        (amounts.Listed(rows=(5, 9)), [5, 9, 9]),
        (amounts.Linear(step=1.0), [30, 60, 90]),
        (amounts.Geometric(ratio=2.0), [60, 120, 240]),
        (amounts.AsAccumulated(), [60, 90, 120]),
        (amounts.AsPool(), [30, 60, 120]),
        (amounts.Budget(rows=100, generations=3), [33, 33, 34]),
    ],
)
def test_amounts(lineage, amount, expected):
    policy = Composite(sample=amount, kept=keeps.Everything(), train=trains.All())
    assert [turn.fresh.num_rows for turn in turns(lineage(policy), 3)] == expected


def test_every_option_of_a_policy_counts(lineage):
    for name in catalogue.POLICIES:
        make = catalogue.load(catalogue.POLICIES[name])
        changed = {"rows": 7, "share": 0.25, "weight": 0.3, "generations": 3, "ratio": 3.0, "survival": 0.25, "pin_real": True}
        for option in catalogue.option_names(make):
            plain, other = make(), make(**{option: changed[option]})
            assert Pool([*sets(lineage, plain)[-1]]).digest != sets(lineage, other)[-1].digest, (name, option)


def test_a_policy_that_breaks_a_law_is_found_out():
    class Copying:
        """Keeps every fresh row twice, and reads the global generator."""

        def amount(self, state):
            return state.real.num_rows

        def keep(self, state, fresh, *, seed):
            return state.pool + state.pool.subsample(int(np.random.randint(1, 5)), seed=seed) + fresh

        def training_set(self, state, *, seed):
            return state.pool

    from dataclasses import dataclass

    found = check_policy(dataclass(frozen=True)(Copying)())
    assert found["global_random_state_is_ignored"]
    assert found["equal_seeds_give_equal_choices"]
    assert found["amounts_are_counts"] is None

import numpy as np
import pytest

from refeed import policies
from refeed.core.errors import Stopped
from refeed.core.loop import turns
from refeed.core.memory import Memory
from refeed.core.rows import Rows
from refeed.families.regression.sampler import Relabel


def run(lineage, generations):
    memory = Memory()
    return [memory.realise(turn.scores[0])["excess_risk"] for turn in turns(lineage, generations)]


def test_generation_one_is_real_and_the_same_under_every_policy(lineage):
    makers = (policies.replace, policies.accumulate, policies.replace_multiple, policies.accumulate_subsample)
    firsts = [next(iter(turns(lineage(make()), 1))) for make in makers]
    assert {turn.train.real_share for turn in firsts} == {1.0}
    assert len({turn.model.digest for turn in firsts}) == 1


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (policies.replace, [{0: 30}, {1: 30}, {2: 30}, {3: 30}]),
        (policies.accumulate, [{0: 30}, {0: 30, 1: 30}, {0: 30, 1: 30, 2: 30}, {0: 30, 1: 30, 2: 30, 3: 30}]),
        (policies.replace_multiple, [{0: 30}, {1: 60}, {2: 90}, {3: 120}]),
    ],
)
def test_what_each_generation_learns_from(lineage, make, expected):
    assert [turn.train.rows_by_generation() for turn in turns(lineage(make()), 4)] == expected


def test_accumulate_subsample_draws_from_everything_and_trains_on_the_original_size(lineage):
    seen = [turn.train for turn in turns(lineage(policies.accumulate_subsample()), 6)]
    assert {train.num_rows for train in seen} == {30}
    assert len(seen[-1].rows_by_generation()) > 3


def test_building_the_loop_computes_nothing(lineage):
    class Unusable:
        def sample(self, *args, **options):
            raise AssertionError("a plan must not compute")

    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Never(Unusable):
        pass

    assert len(list(turns(lineage(sampler=Never()), 20))) == 20


def test_equal_lineages_give_equal_bits(lineage):
    assert run(lineage(), 5) == run(lineage(), 5)


def test_another_seed_gives_another_result(lineage):
    assert run(lineage(seed=0), 1) != run(lineage(seed=1), 1)


def test_a_new_metric_changes_no_model(lineage):
    with_metric = [turn.model.digest for turn in turns(lineage(), 3)]
    without = [turn.model.digest for turn in turns(lineage(metrics=()), 3)]
    assert with_metric == without


def test_forgetting_rows_changes_time_but_no_result(lineage):
    patient, forgetful = Memory(), Memory(max_bytes=1)
    for turn in turns(lineage(policies.accumulate_subsample()), 5):
        assert patient.realise(turn.scores[0]) == forgetful.realise(turn.scores[0])


def test_rows_with_nan_never_reach_the_next_generation(lineage):
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Broken:
        def sample(self, model, num_rows, *, world, seed):
            rows = Relabel().sample(model, num_rows, world=world, seed=seed)
            y = rows["y"].copy()
            y[:3] = np.nan
            return Rows(x=rows["x"], y=y)

    with pytest.raises(Stopped, match="non-finite: 3 of 30 sampled rows"):
        run(lineage(sampler=Broken()), 2)


def test_a_policy_that_keeps_nothing_ends_with_an_empty_pool(lineage):
    from refeed.core.shards import Pool
    from refeed.policies.amounts import Constant
    from refeed.policies.parts import Composite
    from refeed.policies.trains import All

    def nothing(state, fresh, *, seed):
        return Pool()

    policy = Composite(sample=Constant(), kept=nothing, train=All())
    with pytest.raises(Stopped, match="empty pool"):
        run(lineage(policy), 2)


def test_weights_reach_the_fit(lineage):
    """Doubling every weight changes nothing in least squares; leaving the real rows out by weight 0 does."""
    from dataclasses import dataclass

    from refeed.core.shards import Pool

    @dataclass(frozen=True)
    class Weighted:
        real: float

        def amount(self, state):
            return state.real.num_rows

        def keep(self, state, fresh, *, seed):
            return state.pool + fresh

        def training_set(self, state, *, seed):
            real, rest = state.pool.where(real=True), state.pool.where(real=False)
            return Pool((*real.weighted(self.real if rest.num_rows else 1.0), *rest))

    whole = run(lineage(policies.accumulate()), 2)[1]
    assert run(lineage(Weighted(1.0)), 2)[1] == whole
    assert run(lineage(Weighted(0.0)), 2)[1] == pytest.approx(run(lineage(policies.replace()), 2)[1])

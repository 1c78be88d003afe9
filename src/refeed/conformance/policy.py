"""What every policy keeps to, checked on shards of many sizes without any data or model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from refeed.core.loop import Lineage, State, start, turns
from refeed.core.protocols import Policy
from refeed.core.recipes import digest
from refeed.core.seeds import Seed
from refeed.core.shards import Pool, Shard
from refeed.families.regression import ExcessRisk, LeastSquares, Linear, Relabel

SIZES = (1, 2, 7, 40)
GENERATIONS = 6

Law = Callable[[Policy], None]


def rows_are_neither_invented_nor_repeated(policy: Policy) -> None:
    """Every row of a pool or training set is a row of a shard that was offered, and stands there once a part."""
    for state, fresh, kept, train in _steps(policy):
        offered = {part.shard.digest for part in state.pool} | {fresh.digest, state.real.digest, state.more_real().digest}
        for pool in (kept, train):
            assert {part.shard.digest for part in pool} <= offered, "a shard that was never offered"
            for part in pool:
                index = np.arange(part.shard.num_rows) if part.index is None else part.index
                assert len(np.unique(index)) == len(index), "a row stands twice in one part"
                assert not len(index) or 0 <= index.min() <= index.max() < part.shard.num_rows, "a position outside its shard"


def dropped_rows_stay_dropped(policy: Policy) -> None:
    """A training set takes rows from the pool only, and what a pool has lost of a synthetic shard does not come back."""
    for state, fresh, kept, train in _steps(policy):
        assert _rows(train) <= _rows(state.pool), "a training set with rows that are not in the pool"
        before = _rows(state.pool) | _rows(Pool.of(fresh, state.real, state.more_real()))
        assert _rows(kept) <= before, "a dropped row came back"


def origins_are_kept(policy: Policy) -> None:
    """Parts name the shards they were given, origin and all; generation 1 learns from real rows only."""
    for state, fresh, kept, train in _steps(policy):
        known = {part.shard.digest: part.shard.origin for part in state.pool} | {fresh.digest: fresh.origin}
        for part in (*kept, *train):
            assert part.shard.origin == known.get(part.shard.digest, state.real.origin), "an origin was changed"
        if state.generation == 1:
            assert train.real_share == 1.0, "generation 1 must learn from real rows only"


def equal_seeds_give_equal_choices(policy: Policy) -> None:
    """The same state and seed give the same amount, pool and training set."""
    first, again = (list(_digests(policy)) for _ in range(2))
    assert first == again, "two runs with one seed differ"


def its_input_is_left_alone(policy: Policy) -> None:
    """Deciding changes neither the policy nor the pool it is shown."""
    before = digest(policy)
    for state, _, _, _ in _steps(policy):
        before_shown = _rows(state.pool)
        policy.training_set(state, seed=Seed(1))
        assert _rows(state.pool) == before_shown, "the pool changed while deciding"
    assert digest(policy) == before, "the policy changed while deciding"


def amounts_are_counts(policy: Policy) -> None:
    """The amount is a whole number, at least one."""
    for state, _, _, _ in _steps(policy):
        amount = policy.amount(state)
        assert isinstance(amount, int), f"the amount is a {type(amount).__name__}"
        assert amount >= 1, f"the amount is {amount}"


def weights_are_finite(policy: Policy) -> None:
    """Weights are finite and not negative, and some row has a positive one."""
    for _, _, _, train in _steps(policy):
        weights = [part.weight for part in train]
        assert all(np.isfinite(weight) and weight >= 0 for weight in weights), f"weights {weights}"
        assert not weights or max(weights) > 0, "no row has a positive weight"


def global_random_state_is_ignored(policy: Policy) -> None:
    """Neither reads nor moves NumPy's and Python's global generators."""
    import random

    random.seed(0)
    np.random.seed(0)
    first = list(_digests(policy))
    left = (random.random(), float(np.random.random()))
    random.seed(1)
    np.random.seed(1)
    assert list(_digests(policy)) == first, "choices depend on global random state"
    random.seed(0)
    np.random.seed(0)
    assert left == (random.random(), float(np.random.random())), "global random state was moved"


POLICY_LAWS: tuple[Law, ...] = (
    rows_are_neither_invented_nor_repeated,
    dropped_rows_stay_dropped,
    origins_are_kept,
    equal_seeds_give_equal_choices,
    its_input_is_left_alone,
    amounts_are_counts,
    weights_are_finite,
    global_random_state_is_ignored,
)


def check_policy(policy: Policy) -> dict[str, str | None]:
    """Every law by name: None where it holds, else what was seen."""
    found: dict[str, str | None] = {}
    for law in POLICY_LAWS:
        try:
            law(policy)
        except Exception as error:  # a policy that raises breaks the law it was asked about
            found[law.__name__] = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        else:
            found[law.__name__] = None
    return found


def _steps(policy: Policy) -> Iterator[tuple[State, Shard, Pool, Pool]]:
    """(state, fresh, kept, training set) of some generations, from 1, 2, 7 and 40 real rows."""
    for size in SIZES:
        lineage = _lineage(policy, size)
        state = start(lineage)
        for turn in turns(lineage, GENERATIONS):
            seed = lineage.seed / "generation" / turn.generation
            kept = policy.keep(state, turn.fresh, seed=seed / "keep")
            yield state, turn.fresh, kept, turn.train
            state = State(turn.generation + 1, kept, state.real, state.num_seen + turn.fresh.num_rows)


def _digests(policy: Policy) -> Iterator[tuple[int, str, str]]:
    for state, _, kept, train in _steps(policy):
        yield policy.amount(state), kept.digest, train.digest


def _rows(pool: Pool) -> set[tuple[str, int]]:
    return {
        (part.shard.digest, int(row)) for part in pool for row in (range(part.shard.num_rows) if part.index is None else part.index)
    }


def _lineage(policy: Policy, rows: int) -> Lineage:
    return Lineage(
        source=Linear(dimension=1, rows=rows),
        learner=LeastSquares(),
        sampler=Relabel(),
        metrics=(ExcessRisk(),),
        policy=policy,
        seed=Seed(0),
    )

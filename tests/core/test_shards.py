import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refeed.core.seeds import Seed
from refeed.core.shards import Origin, Pool, Shard


class Born:
    """Stands for the step that makes a shard: only its digest is looked at."""

    def __init__(self, digest):
        self.digest = digest


def shard(generation, rows):
    return Shard(Born(f"shard-{generation}-{rows}"), rows, Origin(generation=generation))


def pool(sizes):
    return Pool.of(*(shard(generation, rows) for generation, rows in enumerate(sizes)))


def identities(pool):
    """Every row of a pool as (shard, position)."""
    return [
        (part.shard.digest, int(row))
        for part in pool
        for row in (part.index if part.index is not None else np.arange(part.shard.num_rows))
    ]


sizes = st.lists(st.integers(0, 20), min_size=1, max_size=6)


@given(sizes, st.integers(0, 60), st.integers(0, 10))
def test_a_subsample_neither_invents_nor_repeats_rows(sizes, num_rows, seed):
    whole = pool(sizes)
    chosen = whole.subsample(num_rows, seed=Seed(seed))
    assert chosen.num_rows == min(num_rows, whole.num_rows)
    assert len(set(identities(chosen))) == chosen.num_rows
    assert set(identities(chosen)) <= set(identities(whole))


@given(sizes, st.integers(0, 60))
def test_a_subsample_is_its_seed(sizes, num_rows):
    whole = pool(sizes)
    assert whole.subsample(num_rows, seed=Seed(1)).digest == whole.subsample(num_rows, seed=Seed(1)).digest


@given(sizes, st.integers(1, 30), st.integers(1, 30))
def test_a_subsample_of_a_subsample_names_rows_of_the_original_shards(sizes, first, second):
    whole = pool(sizes)
    inner = whole.subsample(first, seed=Seed(0))
    assert set(identities(inner.subsample(second, seed=Seed(1)))) <= set(identities(inner))


def test_a_subsample_is_uniform():
    """Chi-square over 20 rows, 4000 draws of 5: expected 1000 each; the 1 - 1e-4 quantile with 19 degrees of freedom is 51.8."""
    whole = pool([8, 7, 5])
    order = {row: number for number, row in enumerate(identities(whole))}
    counts = np.zeros(20)
    for n in range(4000):
        for row in identities(whole.subsample(5, seed=Seed(0) / n)):
            counts[order[row]] += 1
    # Draws without replacement vary less than independent ones, by the factor (20 - 5) / (20 - 1) a row.
    assert ((counts - 1000) ** 2 / 1000).sum() / (15 / 19) < 51.8


def test_a_subsample_of_everything_is_the_pool_itself():
    whole = pool([4, 3])
    assert whole.subsample(7, seed=Seed(0)) is whole
    assert whole.subsample(9, seed=Seed(0)) is whole


def test_counts_by_origin():
    whole = pool([4, 0, 3])
    assert whole.rows_by_generation() == {0: 4, 2: 3}
    assert (whole.num_rows, whole.num_real, whole.real_share) == (7, 4, pytest.approx(4 / 7))
    assert whole.where(real=False).num_rows == 3
    assert whole.latest().rows_by_generation() == {2: 3}
    assert np.isnan(Pool().real_share)


def test_the_digest_tells_selections_and_weights_apart():
    whole = pool([4, 3])
    others = [
        whole,
        Pool(reversed(whole.parts)),
        whole.weighted(0.5),
        whole.subsample(3, seed=Seed(0)),
        whole + shard(5, 1),
        Pool(),
    ]
    assert len({other.digest for other in others}) == len(others)


def test_weights_multiply():
    assert [part.weight for part in pool([1, 1]).weighted(0.5).weighted(0.5)] == [0.25, 0.25]

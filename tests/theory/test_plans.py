"""The planner against brute force, and the outlooks against the laws that they stand for."""

import itertools

import numpy as np
import pytest

from refeed.theory import TheoryError, evaluate
from refeed.theory.plans import best_schedule, outlooks, real_share, schedule_error, spending


def brute(*, real, generations, budget, limit, minimum, dimension, spend_all=False):
    """Every schedule of whole rows within the budget."""
    most = int(limit) if budget == "generated" else int(limit) - real
    best, least = None, np.inf
    for tail in itertools.product(range(minimum, most + 1), repeat=generations - 1):
        batches = [real, *tail]
        spent = spending(batches, budget)
        if spent > limit or (spend_all and spent != limit):
            continue
        error = schedule_error(batches, dimension=dimension)
        if error < least - 1e-12:
            best, least = batches, error
    return best, least


@pytest.mark.parametrize("dimension", [1, 6])
@pytest.mark.parametrize(
    ("budget", "limit", "generations", "spend_all"),
    [
        ("generated", 30, 3, True),
        ("generated", 24, 4, True),
        ("generated", 24, 4, False),
        ("compute", 90, 3, False),
        ("compute", 96, 4, False),
        ("storage", 40, 4, False),
    ],
)
def test_brute_force_agrees(dimension, budget, limit, generations, spend_all):
    sizes = {"real": 12, "generations": generations, "minimum": 2, "dimension": dimension, "limit": limit}
    best = best_schedule(**sizes, budget=budget, spend_all=spend_all)
    expected, least = brute(**sizes, budget=budget, spend_all=spend_all)
    assert schedule_error(best, dimension=dimension) == pytest.approx(least, rel=1e-12), (best, expected)
    assert spending(best, budget) <= limit


def test_published_example():
    """R = 100, five generations, at least 10 rows each: 200 rows are best made at once, and 2000 trained rows buy T_2 = 360."""
    sizes = {"real": 100, "generations": 5, "minimum": 10}
    assert best_schedule(**sizes, budget="generated", limit=200, spend_all=True).tolist() == [100, 170, 10, 10, 10]
    assert best_schedule(**sizes, budget="compute", limit=2000).tolist() == [100, 360, 10, 10, 10]
    assert best_schedule(**sizes, budget="generated", limit=200).tolist() == [100, 10, 10, 10, 10]  # less is better still


def test_compositions_reproduce_the_laws_that_are_known():
    """Large pools, where a reservoir's random counts do not matter; the other laws exactly."""
    n, T = 10, 1e6
    rows, below = np.full(n, T), np.tril(np.ones((n, n)))
    even = below * (T / np.arange(1, n + 1))[:, None]

    def law(counts, **options):
        return evaluate("mean.composition", counts=counts, T=rows, **options)

    np.testing.assert_allclose(law(even, again=True), evaluate("mean.accumulate_subsample", T=T, M=T, n=n), rtol=1e-6)
    np.testing.assert_allclose(law(even), evaluate("mean.reservoir", T=T, M=T, n=n), rtol=1e-6)
    np.testing.assert_allclose(law(below * T) * T, np.cumsum(1.0 / np.arange(1, n + 1) ** 2))
    np.testing.assert_allclose(law(np.triu(below, -2) * T), evaluate("mean.window", T=T, K=3, n=n))
    beside = np.eye(n) * T
    beside[:, 0] = T
    np.testing.assert_allclose(law(beside), evaluate("regression.fixed_real", d=1, n_real=T, n_synthetic=T, n=n))


@pytest.mark.parametrize("again", [False, True])
def test_compositions_against_rows(again):
    """Strata of fixed counts, dropped for good or drawn anew: 60,000 lineages with their rows, z = 4 on each generation."""
    rng, runs, T, counts = np.random.default_rng(3), 60_000, [6, 4, 5], [[6, 0, 0], [3, 4, 0], [2, 2, 3]]
    batches = held = [rng.standard_normal((runs, T[0]))]
    errors = []
    for n in range(3):
        held = [rng.permuted(batch, axis=1)[:, : counts[n][g]] for g, batch in enumerate(batches if again else held)]
        mean = np.concatenate(held, 1).mean(1, keepdims=True)
        errors.append(mean[:, 0] ** 2)
        if n < 2:
            fresh = mean + rng.standard_normal((runs, T[n + 1]))
            batches, held = [*batches, fresh], [*held, fresh]
    found = np.stack(errors, 1)
    law = evaluate("mean.composition", counts=counts, T=T, again=again)
    assert (np.abs(found.mean(0) - law) < 4 * found.std(0) / np.sqrt(runs)).all()


def test_every_preset_has_an_outlook():
    """All policies of the catalogue are there by name, apart from what is named in brackets."""
    from refeed.catalogue import POLICIES

    found = {outlook.policy.partition(" (")[0] for outlook in outlooks(real=100, rows=100, generations=6, dimension=5)}
    assert set(POLICIES) <= found, set(POLICIES) - found


def test_outlooks_are_the_laws():
    found = {outlook.policy: outlook for outlook in outlooks(real=60, rows=60, generations=8, dimension=5)}
    base = 5 / 54
    np.testing.assert_allclose(found["replace"].error * base, evaluate("regression.replace", d=5, T=60, n=8))
    np.testing.assert_allclose(found["accumulate"].error * base, evaluate("regression.accumulate", d=5, T=60, n=8))
    np.testing.assert_allclose(found["reservoir"].error / 60, evaluate("mean.reservoir", T=60, M=60, n=8))
    assert found["accumulate"].stored == 480
    assert found["accumulate"].trained == 60 * 36
    errors = [outlook.error[-1] for outlook in found.values()]
    assert errors == sorted(errors)
    assert "accumulate" not in {o.policy for o in outlooks(real=60, rows=60, generations=8, storage=200)}


def test_window_law():
    np.testing.assert_allclose(evaluate("mean.window", T=50, K=1, n=6), np.arange(1, 7) / 50)
    np.testing.assert_allclose(evaluate("mean.window", T=50, K=9, n=6), np.cumsum(1 / np.arange(1, 7) ** 2) / 50)
    slope = np.diff(evaluate("mean.window", T=50, K=4, n=300))[-1]
    assert slope == pytest.approx(evaluate("mean.window_slope", T=50, K=4), rel=1e-3)


@pytest.mark.parametrize(("fitted", "dimension"), [(40, 31), (40, 20), (40, 29), (100, 90)])
def test_the_real_share_is_where_the_loop_turns_stable(fitted, dimension):
    least = round(real_share(fitted=fitted, dimension=dimension).pooled * fitted)
    stable = [
        evaluate("regression.fresh_factor", d=dimension, n_real=real, n_synthetic=fitted - real) < 1 - 1e-12
        for real in range(fitted + 1)
    ]
    assert stable == [real >= least for real in range(fitted + 1)]


def test_money():
    share = real_share(fitted=100, cost_ratio=10)
    assert (share.bought, share.gain) == (pytest.approx(0.12759, rel=1e-4), pytest.approx(1.878, rel=1e-3))
    assert real_share(fitted=100, cost_ratio=0.5).bought == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: outlooks(real=5, rows=5, generations=3, dimension=4), "real >= dimension"),
        (lambda: best_schedule(real=9, generations=5, budget="generated", limit=3), "is below 4"),
        (lambda: real_share(fitted=5, dimension=9), "fitted >= dimension"),
    ],
)
def test_the_domain_is_named(call, message):
    with pytest.raises(TheoryError, match=message):
        call()

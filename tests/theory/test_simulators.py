"""The fast simulators against loops that materialise every row: two-sample Kolmogorov-Smirnov tests, first and last generation.

Each test fails at p < 1e-4; with 75 of them, fresh seeds would give a false alarm in at most .75 % of runs. The increments between
generations are compared too, which the marginals alone would not tell apart. Seeds are fixed, so a pass stays a pass.
"""

import tracemalloc

import numpy as np
import pytest
from loops import accumulate, fit, labelled, pooled, replace, truth
from scipy.stats import ks_2samp

from refeed.theory import TheoryError, evaluate, simulate


def same_law(fast, slow):
    pairs = ((fast[:, 0], slow[:, 0]), (fast[:, -1], slow[:, -1]), (fast[:, -1] - fast[:, 0], slow[:, -1] - slow[:, 0]))
    for a, b in ((a.round(12), b.round(12)) for a, b in pairs):
        assert ks_2samp(a, b).pvalue > 1e-4


@pytest.mark.parametrize(("d", "T"), [(1, [4, 6, 3]), (3, [9, 5, 12]), (8, [12, 20, 11])])
def test_radial_replace(d, T):
    same_law(simulate.replace(d=d, T=T, s=[1, 2, 1], runs=8000), replace(np.random.default_rng(1), 8000, d, T, [1, 2, 1]))


@pytest.mark.parametrize(("d", "real", "synthetic"), [(1, 3, 4), (2, 4, 5), (6, 7, 9), (5, 0, 9)])
def test_radial_fresh(d, real, synthetic):
    rng, runs, errors = np.random.default_rng(2), 8000, []
    zero = truth(runs, d)
    w = fit(*labelled(rng, runs, 14, zero, 1.0))
    for _ in range(4):
        errors.append((w**2).sum(1))
        old, new = labelled(rng, runs, real, zero, 1.0), labelled(rng, runs, synthetic, w, 1.5)
        w = fit(np.concatenate([old[0], new[0]], 1), np.concatenate([old[1], new[1]], 1))
    fast = simulate.fresh(d=d, n_real=real, n_synthetic=synthetic, T1=14, s_synthetic=1.5, n=4, runs=runs, seed=3)
    same_law(fast, np.stack(errors, 1))


@pytest.mark.parametrize(("d", "T"), [(1, [2, 3, 2]), (4, [6, 3, 9]), (5, [2, 3, 4])])
def test_bidiagonal_ridge(d, T):
    rng, runs, errors = np.random.default_rng(4), 8000, []
    star = w = truth(runs, d, 2.0)
    for rows in T:
        w = fit(*labelled(rng, runs, rows, w, 1.0), ridge=1.5)
        errors.append(((w - star) ** 2).sum(1))
    same_law(simulate.ridge_replace(d=d, T=T, ridge=1.5, signal=2.0, runs=runs, seed=5), np.stack(errors, 1))


@pytest.mark.parametrize(("d", "T", "runs"), [(2, [5, 1, 9], 8000), (6, [9, 3, 12], 8000), (26, [30, 9, 40], 1500)])
@pytest.mark.parametrize("ridge", [0.0, 2.0])
def test_gram_accumulate(d, T, runs, ridge):
    signal = 1.5 if ridge else 0.0
    slow = accumulate(np.random.default_rng(6), runs, d, T, [1, 2, 1], ridge=ridge, signal=signal)
    same_law(simulate.accumulate(d=d, T=T, s=[1, 2, 1], ridge=ridge, signal=signal, runs=runs, seed=7), slow)


def test_ridge_with_fresh_real_rows():
    rng, runs, d, errors = np.random.default_rng(20), 8000, 3, []
    star = truth(runs, d, 2.0)
    w = fit(*labelled(rng, runs, 7, star, 1.0), ridge=1.5)
    for _ in range(4):
        errors.append(((w - star) ** 2).sum(1))
        old, new = labelled(rng, runs, 4, star, 1.0), labelled(rng, runs, 2, w, 1.0)
        w = fit(np.concatenate([old[0], new[0]], 1), np.concatenate([old[1], new[1]], 1), ridge=1.5)
    fast = simulate.ridge_fresh(d=d, n_real=4, n_synthetic=2, T1=7, ridge=1.5, signal=2.0, n=4, runs=runs, seed=21)
    same_law(fast, np.stack(errors, 1))


@pytest.mark.parametrize(("d", "T", "n"), [(1, 3, 5), (3, 7, 6), (4, 30, 4)])
@pytest.mark.parametrize("keep", ["reservoir", "subsample"])
def test_pools_of_fixed_size(d, T, n, keep):
    """Blocks of fewer rows than columns, of more, and both; the increments catch what rows that stay or come back correlate."""
    fast = simulate.reservoir if keep == "reservoir" else simulate.accumulate_subsample
    runs = 4000
    fast, slow = fast(d=d, T=T, n=n, runs=runs, seed=22), pooled(np.random.default_rng(23), runs, d, T, n, keep)
    same_law(fast, slow)
    same_law(np.diff(fast).round(9), np.diff(slow).round(9))  # a reservoir that no row enters: 0, not the rounding of it


def test_a_reservoir_that_fills_and_batches_of_other_sizes():
    found = simulate.reservoir(d=2, T=[6, 5, 0, 40], M=14, n=4, runs=3000, seed=24)
    law = evaluate("regression.accumulate", d=2, T=[6, 5], n=2)  # until it is full nothing is dropped
    assert (np.abs(found[:, :2].mean(0) - law) < 4 * found[:, :2].std(0) / np.sqrt(3000)).all()
    np.testing.assert_allclose(found[:, 2], found[:, 1])


def test_history_mixture_is_its_law():
    runs = 20_000
    found = simulate.history_mixture(d=4, M=16, n=6, runs=runs, seed=25)
    law = evaluate("regression.history_mixture", d=4, M=16, n=6)
    assert (np.abs(found.mean(0) - law) < 4 * found.std(0) / np.sqrt(runs)).all()


@pytest.mark.parametrize("policy", ["replace", "accumulate"])
def test_gaussians(policy):
    rng, runs, d, T = np.random.default_rng(8), 5000, 2, [6, 8, 5]
    mean, root, pool, found = np.zeros((runs, 1, d)), np.tile(np.eye(d), (runs, 1, 1)), None, []
    for rows in T:
        fresh = mean + rng.standard_normal((runs, rows, d)) @ root.transpose(0, 2, 1)
        pool = fresh if pool is None or policy == "replace" else np.concatenate([pool, fresh], 1)
        mean = pool.mean(1, keepdims=True)
        S = (pool - mean).transpose(0, 2, 1) @ (pool - mean) / pool.shape[1]
        root = np.linalg.cholesky(S)
        logdet, square = np.linalg.slogdet(S)[1], (mean[:, 0] ** 2).sum(1)
        found.append((square, logdet, (np.trace(S, axis1=1, axis2=2) - d + square - logdet) / 2))
    fast = simulate.gaussian(d=d, T=T, policy=policy, runs=runs, seed=9)
    for k, quantity in enumerate((fast.mean_error, fast.logdet, fast.kl_model_truth)):
        same_law(quantity, np.stack([entry[k] for entry in found], 1))


@pytest.mark.parametrize("policy", ["replace", "accumulate"])
def test_wright_fisher(policy):
    rng, runs, T, n = np.random.default_rng(10), 3000, 15, 4
    p = np.array([0.4, 0.3, 0.2, 0.1])
    mixed = []
    share, pool = np.tile(p, (runs, 1)), np.zeros((runs, 0), dtype=int)
    for _ in range(n):
        rows = (rng.random((runs, T, 1)) > np.cumsum(share, 1)[:, None, :-1]).sum(2)  # every draw, one by one
        pool = rows if policy == "replace" else np.concatenate([pool, rows], 1)
        share = np.stack([(pool == k).mean(1) for k in range(4)], 1)
        mixed.append(1 - (share**2).sum(1))
    fast = simulate.wright_fisher(p=p, T=T, n=n, policy=policy, runs=runs, seed=11)
    jitter = np.random.default_rng(12).random((2, runs, n)) * 1e-3  # ties would make the test conservative
    same_law(1 - (fast**2).sum(2) + jitter[0], np.stack(mixed, 1) + jitter[1])


@pytest.mark.parametrize("policy", ["replace", "accumulate"])
def test_kernel_density(policy):
    rng, runs, T, h, errors = np.random.default_rng(13), 800, 12, 0.5, []

    def overlap(a, b, variance):
        return (np.exp(-((a[:, :, None] - b[:, None, :]) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)).mean((1, 2))

    rows, zero = rng.standard_normal((runs, T)), np.zeros((runs, 1))
    for _ in range(3):
        errors.append(overlap(rows, rows, 2 * h**2) - 2 * overlap(rows, zero, 1 + h**2) + 1 / np.sqrt(4 * np.pi))
        chosen = np.take_along_axis(rows, rng.integers(rows.shape[1], size=(runs, T)), 1)
        fresh = chosen + h * rng.standard_normal(chosen.shape)
        rows = fresh if policy == "replace" else np.concatenate([rows, fresh], 1)
    same_law(simulate.kde(T=T, h=h, n=3, policy=policy, runs=runs, seed=14), np.stack(errors, 1))


def test_markov_chains():
    rng, runs, T, n = np.random.default_rng(15), 600, 30, 3
    matrix, start = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4]]), np.array([0.5, 0.3, 0.2])
    found = np.empty((runs, n))
    for run in range(runs):
        model = matrix
        for g in range(n):
            path = [rng.choice(3, p=start)]
            for _ in range(T):
                path.append(rng.choice(3, p=model[path[-1]]))
            counts = np.zeros((3, 3))
            np.add.at(counts, (path[:-1], path[1:]), 1)
            left = counts.sum(1, keepdims=True)
            model = np.where(left > 0, counts / np.maximum(left, 1), start)
            found[run, g] = (model**2).sum()
    fast = (simulate.markov(transitions=matrix, start=start, T=T, n=n, runs=runs, seed=16) ** 2).sum((2, 3))
    same_law(fast, found)


def test_memory_knows_neither_rows_nor_generations():
    def peak(T, n):
        tracemalloc.start()
        simulate.accumulate(d=30, T=T, n=n, runs=1)
        simulate.replace(d=30, T=T, n=n, runs=1)
        simulate.gaussian(d=30, T=T, n=n, policy="accumulate", runs=1)
        simulate.kde(T=20 * n, h=0.05, n=n, policy="accumulate", runs=1)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(60, 2)
    assert peak(10**8, 40) < 1.5 * peak(60, 2) + 40_000


def test_seeds_and_means():
    once = simulate.accumulate(d=5, T=20, n=3, runs=600, seed=1)
    assert (once == simulate.accumulate(d=5, T=20, n=3, runs=600, seed=1)).all()
    assert once.dtype == np.float64
    tall = simulate.accumulate(d=100, T=1000, n=3, runs=400).mean(0)
    np.testing.assert_allclose(tall, evaluate("regression.accumulate", d=100, T=1000, n=3), rtol=0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simulate.replace(d=5, T=4, n=1, runs=1), "T >= d >= 1"),
        (lambda: simulate.accumulate(d=5, T=4, n=1, runs=1), "T_1 >= d is needed without a ridge"),
        (lambda: simulate.reservoir(d=5, T=9, M=4, n=1, runs=1), "M and T_1 >= d"),
        (lambda: simulate.accumulate_subsample(d=5, T=9, M=10, n=1, runs=1), "T_1 >= M"),
        (lambda: simulate.history_mixture(d=5, M=4, n=1, runs=1), "M >= d"),
        (lambda: simulate.ridge_fresh(d=5, n_real=1, n_synthetic=2, ridge=0, n=1, runs=1), "ridge must be positive"),
        (lambda: simulate.fresh(d=5, n_real=1, n_synthetic=2, n=1, runs=1), "> d are needed"),
        (lambda: simulate.gaussian(d=5, T=5, n=1, runs=1), "T > d"),
        (lambda: simulate.wright_fisher(p=np.array([0.5]), T=5, n=1, runs=1), "sum to 1"),
    ],
)
def test_the_domain_is_named(call, message):
    with pytest.raises(TheoryError, match=message):
        call()

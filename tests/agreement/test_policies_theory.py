"""Policies three ways: the loop, a row-by-row calculus of their training sets, and the closed forms of the literature.

In the classical limit (d fixed, many rows) a fit is a weighted mean: model n errs by e_n = sum_r w_r (e_src(r) + noise_r) over the
rows r of its training set, src(r) the model that wrote row r. So e_n is a linear combination of all noises ever drawn, and its
variance follows exactly from which rows each generation trained on, whatever the policy. Here it is computed from the training
sets alone.
"""

import numpy as np
import pytest

from refeed import policies
from refeed.core.loop import turns
from refeed.core.memory import Memory

ROWS, GENERATIONS, SEEDS = 200, 8, 600


def calculus(seen):
    """T times the variance of e_n / s^2 for each training set of `seen`, by its rows' noises."""
    combinations, rows, errors = {0: {}}, {}, []
    for turn in seen:
        total = sum(part.weight * part.num_rows for part in turn.train)
        combination = {}
        for part in turn.train:
            digest, index = part.shard.digest, (slice(None) if part.index is None else part.index)
            rows[digest] = part.shard.num_rows
            share = part.weight / total
            for other, values in combinations[part.generation].items():
                combination[other] = combination.get(other, np.zeros(rows[other])) + share * part.num_rows * values
            combination.setdefault(digest, np.zeros(rows[digest]))
            combination[digest][index] += share
        combinations[turn.generation] = combination
        errors.append(ROWS * sum(float(values @ values) for values in combination.values()))
    return np.array(errors)


def harmonic(n, power=1):
    return np.cumsum(1 / np.arange(1, n + 1) ** power)


def fixed_real(n):
    errors, f = [], 0.0
    for _ in range(n):
        errors.append(1 + f)
        f = (f + 1) / 4
    return np.array(errors)


def fresh(weight, n):
    errors = [1.0]
    for _ in range(n - 1):
        errors.append(weight**2 + (1 - weight) ** 2 * (1 + errors[-1]))
    return np.array(errors)


def subsample(n):
    """T times the error when T of the kept rows are drawn each time: the exact recursion of pool moments for one parameter."""
    square, total, size, errors = 1.0 / ROWS, 1.0 * ROWS, ROWS, []
    for _ in range(n):
        errors.append(square + (1 / ROWS) * (1 - ROWS / size) * (total - size * square) / (size - 1))
        square = (size**2 * square + 2 * size * ROWS * square + ROWS**2 * (errors[-1] + 1 / ROWS)) / (size + ROWS) ** 2
        total += ROWS * (errors[-1] + 1)
        size += ROWS
    return ROWS * np.array(errors)


GOLDEN = (np.sqrt(5) - 1) / 2
CLOSED = {
    "replace": (policies.replace(), np.arange(1, GENERATIONS + 1), 1e-9),
    "accumulate": (policies.accumulate(), harmonic(GENERATIONS, 2), 1e-9),
    "replace-multiple": (policies.replace_multiple(), harmonic(GENERATIONS), 1e-9),
    "growing": (policies.growing(), np.cumsum([1.0, *(0.5 * 2.0**i / 4.0**i for i in range(1, GENERATIONS))]), 1e-9),
    "fixed-real": (policies.fixed_real(), fixed_real(GENERATIONS), 1e-9),
    "fresh-real": (policies.fresh_real(), fresh(0.5, GENERATIONS), 1e-9),
    "weighted-fresh-real": (policies.weighted_fresh_real(), fresh(GOLDEN, GENERATIONS), 1e-9),
    "real-only": (policies.real_only(), np.ones(GENERATIONS), 1e-9),
    "accumulate-subsample": (policies.accumulate_subsample(), subsample(GENERATIONS), 0.02),
    "reservoir": (policies.reservoir(), 2 * harmonic(GENERATIONS) - harmonic(GENERATIONS, 2), 0.02),
}


@pytest.mark.parametrize("name", CLOSED)
def test_training_sets_give_the_closed_form(lineage, name):
    policy, expected, tolerance = CLOSED[name]
    seeds = range(1) if tolerance < 1e-6 else range(60)
    found = np.mean([calculus(turns(lineage(policy, seed=seed, rows=ROWS, dimension=1), GENERATIONS)) for seed in seeds], axis=0)
    assert found == pytest.approx(expected, rel=tolerance)


def test_limits_of_the_literature(lineage):
    def last(policy, generations):
        return calculus(turns(lineage(policy, rows=20, dimension=1), generations))[-1] * 20 / ROWS

    assert last(policies.growing(), 14) == pytest.approx(1.5, rel=1e-3)
    assert last(policies.fixed_real(), 14) == pytest.approx(4 / 3, rel=1e-6)
    assert last(policies.weighted_fresh_real(), 14) == pytest.approx(GOLDEN, rel=1e-3)
    window = calculus(turns(lineage(policies.window(generations=3), rows=20, dimension=1), 60)) * 20 / ROWS
    assert (window[-1] - window[-11]) / 10 == pytest.approx(4 / (3 + 1) ** 2, rel=0.02)


OTHERS = {
    "window": policies.window(generations=3),
    "pinned-reservoir": policies.pinned_reservoir(),
    "strata": policies.strata(),
    "forgetting": policies.forgetting(),
    "real-share": policies.real_share(share=0.4),
    "real-share-floor": policies.real_share_floor(share=0.3),
}


@pytest.mark.parametrize("name", [*CLOSED, *OTHERS])
def test_the_loop_errs_as_its_training_sets_say(lineage, name):
    """Mean over 600 lineages of T |w - w*|^2 / (s^2 d) against the calculus on the same training sets, d = 2, T = 200; z = 4.

    The calculus lacks the finite-size factor N / (N - d - 1), at most 1.5 % here, which is allowed for.
    """
    policy = OTHERS[name] if name in OTHERS else CLOSED[name][0]
    found, expected = np.zeros((SEEDS, GENERATIONS)), np.zeros((SEEDS, GENERATIONS))
    deterministic = CLOSED.get(name, (None, None, 1))[2] < 1e-6
    for seed in range(SEEDS):
        line, memory = lineage(policy, seed=seed, rows=ROWS, dimension=2), Memory()
        seen = list(turns(line, GENERATIONS))
        found[seed] = [ROWS / 2 * memory.realise(turn.scores[0])["excess_risk"] for turn in seen]
        if seed < (1 if deterministic else 100):
            expected[seed:] = calculus(seen)
    error = found.std(axis=0, ddof=1) / np.sqrt(SEEDS)
    spread = np.zeros(GENERATIONS) if deterministic else expected[:100].std(axis=0, ddof=1) / 10
    mean = expected[0] if deterministic else expected[:100].mean(axis=0)
    z = (np.abs(found.mean(axis=0) - mean) - 0.02 * mean) / np.hypot(error, spread)
    assert z.max() < 4, (name, found.mean(axis=0), mean)

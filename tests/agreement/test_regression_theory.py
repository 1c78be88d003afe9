"""Theory is the oracle: the loop's mean over 400 lineages against the exact law, every generation, every policy, both designs.

Each check compares a mean of 400 independent lineages with its exact expectation at z = 4. With 10 generations the chance
of a false alarm is below 10 x 6.4e-5 = 6e-4 a case; seeds are fixed, so a pass stays a pass.
"""

import numpy as np
import pytest

from refeed.families.regression.sampler import Relabel
from refeed.studies import run
from refeed.theory import evaluate

CASES = [
    ("replace", "fresh", "regression.replace"),
    ("accumulate", "fresh", "regression.accumulate"),
    ("replace", "same", "regression.replace"),
    ("accumulate", "same", "regression.accumulate_same_x"),
]


@pytest.mark.parametrize("design", ["fresh", "same"])
def test_means_agree_with_theory(regression_study, design):
    study = regression_study(rows=100, dimension=10, seeds=tuple(range(400)), generations=10, sampler=Relabel(design=design))
    scores = run(study).scores
    for policy, this_design, law in CASES:
        if this_design != design:
            continue
        errors = np.array(
            [
                [row["value"] for row in scores.to_pylist() if (row["policy"], row["generation"]) == (policy, g)]
                for g in range(1, 11)
            ]
        )
        expected = evaluate(law, d=10, T=100, n=10)
        z = (errors.mean(axis=1) - expected) / (errors.std(axis=1, ddof=1) / np.sqrt(400))
        assert np.abs(z).max() < 4, (policy, design, z)


def test_replace_multiple_agrees_with_theory(regression_study):
    study = regression_study(rows=100, dimension=10, seeds=tuple(range(400)), generations=5, names=("replace-multiple",))
    scores = run(study).scores.to_pylist()
    expected = evaluate("regression.replace", d=10, T=[100 * n for n in range(1, 6)], n=5)
    for generation in range(1, 6):
        errors = np.array([row["value"] for row in scores if row["generation"] == generation])
        assert abs(errors.mean() - expected[generation - 1]) < 4 * errors.std(ddof=1) / 20


def test_the_oracle_can_fail(regression_study):
    """The same check, with the noise told wrongly by a tenth, does fail."""
    study = regression_study(rows=100, dimension=10, seeds=tuple(range(400)), generations=1, names=("replace",))
    errors = np.array(run(study).scores["value"])
    wrong = evaluate("regression.replace", d=10, T=100, n=1, s=1.1)[0]
    assert abs(errors.mean() - wrong) > 4 * errors.std(ddof=1) / 20

"""The laws against simulations with rows, false-alarm rate 6e-5 an entry (z = 4), and against each other."""

import numpy as np
import pytest

from refeed.theory import TheoryError, evaluate, laws

D, T, N = 4, 12, 5


def simulate(policy: str, *, same_x: bool, runs: int = 6000, s: float = 1.5) -> np.ndarray:
    """|w_n|^2 of loops whose truth is w* = 0; shape (runs, N)."""
    rng = np.random.default_rng([7, len(policy), same_x])
    real = rng.standard_normal((runs, T, D))
    w = np.zeros((runs, D, 1))
    kept_x, kept_y, errors = [], [], []
    for generation in range(1, N + 1):
        copies = generation if policy == "replace_multiple" else 1
        fresh = rng.standard_normal((runs, copies * T, D))
        x = np.concatenate([real] * copies, axis=1) if same_x or generation == 1 else fresh
        y = x @ w + s * rng.standard_normal((runs, x.shape[1], 1))
        if policy == "accumulate":
            kept_x.append(x)
            kept_y.append(y)
            x, y = np.concatenate(kept_x, axis=1), np.concatenate(kept_y, axis=1)
        w = np.linalg.solve(x.transpose(0, 2, 1) @ x, x.transpose(0, 2, 1) @ y)
        errors.append((w**2).sum(axis=(1, 2)))
    return np.stack(errors, axis=1)


@pytest.mark.parametrize("policy", ["replace", "accumulate", "replace_multiple"])
@pytest.mark.parametrize("same_x", [False, True], ids=["fresh", "same"])
def test_simulation_agrees(policy, same_x):
    errors = simulate(policy, same_x=same_x)
    value = evaluate(f"regression.{policy}" + "_same_x" * same_x, d=D, T=T, n=N, s=1.5)
    z = (errors.mean(axis=0) - value) / (errors.std(axis=0, ddof=1) / np.sqrt(len(errors)))
    assert np.abs(z).max() < 4, z


def test_generation_one_is_the_same_everywhere():
    laws_with_n = [f"regression.{p}{x}" for p in ("replace", "accumulate", "replace_multiple") for x in ("", "_same_x")]
    for name in laws_with_n:
        assert evaluate(name, d=10, T=100, n=1) == pytest.approx([10 / 89]), name


def test_order_of_the_policies():
    replace, multiple, accumulate, same = (
        evaluate(f"regression.{name}", d=10, T=100, n=50)[-1]
        for name in ("replace", "replace_multiple", "accumulate", "accumulate_same_x")
    )
    assert replace > multiple > same > accumulate
    assert accumulate < evaluate("regression.accumulate_schedule_bound", d=10, T=100)
    assert same < evaluate("regression.accumulate_bound", d=10, T=100)


def test_published_means_of_the_follow_up():
    """d = 32, s = 1, T = 100, same X, arXiv:2410.16713: means of runs, hence only to 6 %."""
    at = [1, 2, 5, 10, 50, 100]
    replace = evaluate("regression.replace_same_x", d=32, T=100, n=at)
    accumulate = evaluate("regression.accumulate_same_x", d=32, T=100, n=at)
    np.testing.assert_allclose(replace, [0.486, 0.942, 2.45, 4.93, 24.0, 47.8], rtol=0.06)
    np.testing.assert_allclose(accumulate, [0.486, 0.594, 0.698, 0.740, 0.770, 0.772], rtol=0.06)


def test_subsample_tends_to_its_limit():
    value = evaluate("regression.accumulate_subsample", d=3, T=5000, n=[4000])[0]
    assert value * 5000 / 3 == pytest.approx(evaluate("mean.accumulate_subsample_limit"), rel=2e-3)


def test_curve_list_and_schedule_agree():
    curve = evaluate("regression.accumulate", d=4, T=[12, 9, 20], s=[1, 2, 3])
    assert evaluate("regression.accumulate", d=4, T=[12, 9, 20], s=[1, 2, 3], n=[1, 3]) == pytest.approx(curve[[0, 2]])
    assert evaluate("regression.accumulate", d=4, T=[12, 9, 20], s=[1, 2, 3], n=2) == pytest.approx(curve[:2])


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("regression.replace", {"d": 10, "T": 11, "n": 3}, r"T >= d \+ 2 is needed .* T = 11 and d = 10"),
        ("regression.accumulate", {"d": 10, "T": [11, 90]}, "T_1 >= d"),
        ("regression.replace", {"d": 10, "T": 100}, "give n"),
        ("regression.replace", {"d": 10, "T": 100, "n": 0}, "counted from 1"),
        ("regression.replace", {"d": 10, "T": [100, 100], "n": 3}, "has 2 entries"),
        ("regression.replace", {"d": 10, "T": 100, "n": 3, "s": -1}, "must not be negative"),
        ("regression.replace", {"d": 10, "n": 3}, "needs 'T'"),
        ("regression.replace", {"d": 10, "T": 100, "rows": 3}, "has no parameter 'rows'; its parameters are d, T, n"),
        ("regression.replase", {}, "did you mean regression.replace"),
        ("regression.accumulate", {"d": 2, "T": 9, "n": 1, "Sigma_test": [1, 2, 3]}, "Sigma_test must be 2 variances"),
        ("regression.accumulate_subsample", {"d": 60, "T": 100, "n": 1}, "M >= 2 d"),
        ("mean.accumulate_subsample", {"T": 10, "M": 11, "n": 1}, "M <= T"),
        ("mean.accumulate_subsample_limit", {"budget_ratio": 2}, "must be in"),
    ],
)
def test_errors_name_the_condition(name, parameters, message):
    with pytest.raises(TheoryError, match=message):
        evaluate(name, **parameters)


@pytest.mark.parametrize("found", laws().values(), ids=lambda found: found.name)
def test_every_law_says_what_it_is(found):
    assert found.kind in ("exact", "bound", "classical limit", "asymptotic")
    assert 20 < len(found.summary) < 200

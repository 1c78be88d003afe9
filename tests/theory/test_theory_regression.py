"""The laws against simulations with rows, false-alarm rate 6e-5 an entry (z = 4), and against each other."""

import inspect
from pathlib import Path

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


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("regression.accumulate_variance", {"d": 10, "T": 13, "n": 2}, r"T_1 > d \+ 3 is needed"),
        ("regression.replace_variance", {"d": 10, "T": [20, 13]}, r"T > d \+ 3 is needed"),
        ("regression.fresh", {"d": 10, "n_real": 5, "n_synthetic": 6, "n": 2}, r"n_real \+ n_synthetic >= d \+ 2"),
        ("regression.fresh", {"d": 10, "n_real": -5, "n_synthetic": 60, "n": 2}, "n_real >= 0"),
        ("regression.fresh_limit", {"d": 31, "n_real": 20, "n_synthetic": 20}, "q < 1 is needed for a limit, but q = 1.20055"),
        ("regression.fresh_weighted_asymptotic", {"d": 4, "n_real": 9, "n_synthetic": 9, "w": 1.5}, "w, the weight"),
        ("regression.fixed_real_asymptotic", {"d": 9, "n_real": 9, "n_synthetic": 9, "n": 2}, "n_real >= 11"),
        ("regression.history_mixture", {"d": 9, "M": 10, "n": 2}, r"M >= d \+ 2"),
        ("regression.replace_min_norm", {"d": 9, "T": 0, "n": 2}, "T must be at least 1"),
        ("regression.replace_estimated_noise", {"d": 9, "T": 10, "n": 2}, r"T >= d \+ 2"),
        ("regression.ridge_replace", {"d": 9, "T": 10, "n": 2, "ridge": 0}, "ridge must be positive"),
        (
            "regression.ridge_replace_asymptotic",
            {"d": 3, "T": 9, "n": 1, "ridge": 1, "Sigma_diag": "__import__(1)", "w": "k"},
            "formula",
        ),
        ("regression.fresh_best_weight", {"ratio": 0}, "must be positive"),
        ("mean.reservoir", {"T": 5, "M": 6, "n": 2}, "1 <= M <= T is needed, the reservoir"),
        ("gaussian.reservoir_variance", {"T": 5, "M": 6, "n": 2}, "1 <= M <= T"),
        ("gaussian.accumulate_variance", {"T": 5, "n": 2, "estimator": "map"}, "'ml' or 'unbiased'"),
        ("gaussian.replace_kl_truth_model", {"d": 3, "T": 5, "n": 2}, r"T >= d \+ 3"),
        ("gaussian.fresh_variance", {"n_real": 4, "n_synthetic": 6, "n": 2, "temperature": -1}, "temperature"),
        ("exponential_family.variance_accumulate_limit", {"T": 1, "v2": -2}, r"T \+ v2 >= 0"),
        ("categorical.survivors", {"T": 10, "n": 2}, "give p, or num_symbols"),
        ("categorical.zipf_support", {"T": 10, "n": 2, "beta": 1}, "beta > 1"),
        ("kde.mise_replace", {"T": 10, "n": 2, "h": 0}, "h, the bandwidth"),
        ("mean.geometric_batches_limit", {"r": 1}, "r > 1"),
    ],
)
def test_every_family_names_the_condition(name, parameters, message):
    with pytest.raises(TheoryError, match=message):
        evaluate(name, **parameters)


def test_laws_meet_where_they_overlap():
    fresh = {"d": 5, "n": 6, "T1": 20}
    np.testing.assert_allclose(
        evaluate("regression.fresh", n_real=0, n_synthetic=20, **fresh), evaluate("regression.replace", d=5, T=20, n=6)
    )
    ridge = evaluate("regression.ridge_replace", d=5, T=20, n=6, ridge=1e-9)
    np.testing.assert_allclose(ridge, evaluate("regression.replace", d=5, T=20, n=6), rtol=1e-7)
    ridge = evaluate("regression.ridge_fresh", n_real=9, n_synthetic=11, ridge=1e-9, **fresh)
    np.testing.assert_allclose(ridge, evaluate("regression.fresh", n_real=9, n_synthetic=11, **fresh), rtol=1e-7)
    ridge = evaluate("regression.ridge_fresh", n_real=0, n_synthetic=20, ridge=3.0, signal=2, **fresh)
    np.testing.assert_allclose(ridge, evaluate("regression.ridge_replace", d=5, T=20, n=6, ridge=3.0, signal=2))
    low = evaluate("regression.accumulate_min_norm", d=5, T=[7, 9, 3])
    np.testing.assert_allclose(low, evaluate("regression.accumulate", d=5, T=[7, 9, 3]))
    assert evaluate("regression.fresh_limit", d=3, n_real=6, n_synthetic=10) == pytest.approx(
        evaluate("regression.fresh", d=3, n_real=6, n_synthetic=10, n=[200])[0]
    )
    best = evaluate("regression.fresh_best_weight", ratio=0.7)
    value = [(w**2 + 0.7 * (1 - w) ** 2) / (w * (2 - w)) for w in (best - 1e-4, best, best + 1e-4)]
    assert value[1] == pytest.approx(best)
    assert value[1] < min(value[0], value[2])


def test_large_sizes_stay_finite_and_agree_with_the_asymptotics():
    exact = evaluate("regression.ridge_scalars", T=3000, d=400, ridge=50.0)
    np.testing.assert_allclose(exact, evaluate("regression.ridge_scalars_asymptotic", T=3000, d=400, ridge=50.0), rtol=2e-3)
    assert np.isfinite(evaluate("regression.accumulate_variance", d=1000, T=5000, n=1000)).all()
    assert np.isfinite(evaluate("kde.mise_replace", T=100, h=0.01, n=100)).all()


def test_every_law_says_its_kind_and_where_it_is_derived():
    pages = Path(__file__).parents[2] / "docs" / "theory"
    for law in laws().values():
        assert law.kind in (inspect.getdoc(law.function) or "").lower(), law.name
        page, _, work = law.reference.partition("; ")
        assert (pages.parent.parent / page).is_file(), law.name
        assert "arXiv:" in work

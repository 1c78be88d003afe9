"""The forecast: right on curves whose future is certain, honest in its width, and calibrated on a sample of loops.

Coverage is a statistic: of 32 curves an 80 % interval holds 26 +- 2.3; the test allows 4 standard errors, a false alarm in 2e-4
of fresh seeds. docs/theory/forecast.md has the whole table. Seeds are fixed.
"""

import numpy as np
import pytest

from refeed.theory import TheoryError, simulate
from refeed.theory.calibration import Trial, coverage, trial
from refeed.theory.forecast import POLICIES, SHAPES, SPREAD, forecast

NOISE = 0.02


def loop(policy, d, n, seed):
    rng = np.random.default_rng(seed)
    run = simulate.replace if policy == "replace" else simulate.accumulate
    return run(d=d, T=4 * d, n=n, runs=1, seed=rng)[0] * (3 - 1 / d) + 1.5 + NOISE * rng.standard_normal(n)


def test_intervals_cover():
    curves = [(policy, loop(policy, 20, 15, seed)) for seed in range(16) for policy in ("replace", "accumulate")]
    made = [forecast(curve[:6], to=15, policy=policy) for policy, curve in curves]
    for level in (0.5, 0.8, 0.95):
        spans = [one.interval(level) for one in made]
        inside = [low[-1] <= curve[-1] <= high[-1] for (_, curve), (low, high) in zip(curves, spans, strict=True)]
        assert abs(np.mean(inside) - level) < 4 * np.sqrt(level * (1 - level) / len(curves)), (level, np.mean(inside))


def test_a_straight_line_goes_on_and_a_falling_curve_falls():
    line = forecast(np.arange(1.0, 9), to=16, policy="replace")
    assert line.median[-1] == pytest.approx(16, abs=1.0)
    assert line.decision == "collapse"
    falling = forecast(2 + 3 * np.arange(1.0, 9) ** -0.7, to=20)
    assert falling.decision == "improvement"
    assert falling.median[-1] == pytest.approx(2 + 3 * 20**-0.7, abs=0.15)
    flat = forecast(np.cumsum(1 / np.arange(1.0, 11) ** 2), to=30, policy="accumulate")
    assert flat.decision == "plateau"
    assert flat.median[-1] == pytest.approx(np.pi**2 / 6 - 1 / 30, abs=0.03)


def test_intervals_nest_widen_and_follow_the_units():
    curve = loop("replace", 20, 6, 3)
    made, scaled = forecast(curve, to=12), forecast(1000 * curve - 7, to=12)
    (low50, high50), (low95, high95) = made.interval(0.5), made.interval(0.95)
    assert (low95 < low50).all()
    assert (high50 < high95).all()
    assert (np.diff(high95 - low95) > -0.05 * (high95 - low95)[1:]).all()
    np.testing.assert_allclose(scaled.median, 1000 * made.median - 7, rtol=1e-6)
    assert made.generations.tolist() == list(range(7, 13))
    assert sum(made.shapes.values()) == pytest.approx(1)
    assert sum(made.chances.values()) == pytest.approx(1)
    assert (forecast(curve, to=12).draws == made.draws).all()


def test_the_policy_and_more_lineages_narrow_it():
    curves = np.stack([loop("accumulate", 20, 6, seed) for seed in range(8)])

    def width(made):
        low, high = made.interval(0.8)
        return float((high - low)[-1])

    one, many, told = forecast(curves[0], to=20), forecast(curves, to=20), forecast(curves, to=20, policy="accumulate")
    assert width(told) < width(many) < width(one)


def test_what_cannot_be_said_is_undecided():
    """Five noisy points of a slow curve, no policy told: no shape is excluded."""
    made = forecast(np.array([1.0, 1.25, 1.36, 1.42, 1.47]) + 0.03 * np.array([1, -1, 1, -1, 1]), to=40)
    assert max(made.shapes.values()) < 0.6
    assert made.decision == "undecided" or max(made.chances.values()) < 0.9


@pytest.mark.parametrize("curve", [[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 1e-9], [5.0, 4.0, 3.0, 2.0, 1.0], [1e6, 1e6 + 1, 1e6 + 5]])
def test_odd_curves_still_give_numbers(curve):
    made = forecast(np.array(curve), to=9)
    assert np.isfinite(made.draws).all()


def test_every_policy_names_shapes_there_are():
    assert {shape for shapes in POLICIES.values() for shape in shapes} <= set(SHAPES)
    for policy in POLICIES:
        assert np.isfinite(forecast(np.array([1, 1.6, 2.2, 2.6]), to=6, policy=policy, dimension=30, floor=0.0).draws).all()
    assert set(SPREAD) <= set(SHAPES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"losses": [1, 2], "to": 9}, "at least 3 generations"),
        ({"losses": [1, 2, 3], "to": 3}, "beyond the 3 observed"),
        ({"losses": [1, np.nan, 3], "to": 9}, "NaN"),
        ({"losses": [1, 2, 3], "to": 9, "policy": "replaced"}, "no growth shape is known"),
        ({"losses": [1, 2, 3], "to": 9, "dimension": 0}, "dimension must be positive"),
    ],
)
def test_the_domain_is_named(arguments, message):
    losses = np.array(arguments.pop("losses"), dtype=float)
    with pytest.raises(TheoryError, match=message):
        forecast(losses, **arguments)


def test_coverage_counts_what_it_says():
    trials = [Trial(told=True, rank=rank, miss=1.0, width=2.0, decision="plateau") for rank in (0.5, 0.2, 0.92, 0.999)]
    found = coverage(trials)
    assert found.shares == {0.5: 0.25, 0.8: 0.5, 0.95: 0.75}
    assert found.errors[0.8] == pytest.approx(0.2)
    assert found.calibrated == {0.5: False, 0.8: False, 0.95: False}
    assert found.decisions == {"plateau": 1.0}
    with pytest.raises(TheoryError, match="no trial"):
        coverage([])


def test_a_trial_forecasts_what_it_does_not_see():
    """The end is judged and not used: changing it changes ranks only."""
    curve = loop("replace", 20, 12, 5)
    other = np.append(curve[:-1], curve[-1] + 1e6)
    told, untold = trial(curve, observe=5, to=12, policy="replace")
    assert (told.told, untold.told) == (True, False)
    assert trial(other, observe=5, to=12, policy="replace")[0].rank == 1.0
    assert trial(other, observe=5, to=12, policy="replace")[0].width == told.width
    assert [t.told for t in trial(curve, observe=5, to=12, policy="strata")] == [False]

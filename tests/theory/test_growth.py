"""The growth map says what the laws say: bounded, slow, linear, and the two instabilities."""

import numpy as np
import pytest

from refeed.theory import evaluate, simulate
from refeed.theory.growth import CURVES, INSTABILITIES, OPEN, REGIMES, growth_map, measured_regime, regime


def at(policy, share, generation):
    (entry,) = growth_map(shares=[share], generations=[generation], policies=[policy])
    return entry["regime"]


@pytest.mark.parametrize(
    ("policy", "share", "expected"),
    [
        ("accumulate", 0.1, "bounded"),
        ("accumulate", 0.9, "bounded"),
        ("replace", 0.1, "linear"),
        ("replace-multiple", 0.1, "logarithmic"),
        ("reservoir", 0.1, "logarithmic"),
        ("window (generations 3)", 0.1, "linear"),
        ("fixed-real", 0.3, "bounded"),
        ("fresh-real, T rows in all", 0.5, "bounded"),
        ("fresh-real, T rows in all", 0.9, "faster"),
        ("accumulate-subsample", 0.1, "bounded"),
    ],
)
def test_regimes_in_the_long_run(policy, share, expected):
    assert at(policy, share, 32) == expected


def test_the_history_mixture_past_half_grows_as_a_power():
    slow, fast = (at("accumulate-subsample", share, 64) for share in (0.3, 0.8))
    assert slow == "bounded"
    assert REGIMES.index(fast) >= REGIMES.index("linear")


def test_the_instabilities_are_where_the_factors_pass_one():
    share = INSTABILITIES["accumulate-subsample"]
    assert evaluate("regression.history_factor", M=4000, d=round(share * 4000)) == pytest.approx(1, abs=0.01)
    share = INSTABILITIES["fresh-real, T rows in all"]
    assert evaluate("regression.fresh_factor", n_real=2000, n_synthetic=2000, d=round(share * 4000)) == pytest.approx(1, abs=0.01)
    assert set(INSTABILITIES) <= set(CURVES)
    assert [regime(1, 2, 2 + step) for step in (0.5, 1.0, 2.0, 9.0)] == list(REGIMES)


def test_measured_lineages_say_what_the_laws_say_or_nothing():
    """Regimes of 60 lineages: two standard errors to every edge, so a wrong one comes in 2 % of cells or so; seeds are fixed."""
    for run, expected in ((simulate.replace, "linear"), (simulate.accumulate, "bounded")):
        errors = run(d=40, T=160, n=32, runs=60, seed=1)
        found = [measured_regime(*(errors[:, k * n - 1] for k in (1, 2, 4))) for n in (1, 2, 4, 8)]
        assert set(found) <= {expected, OPEN}
        assert expected in found
    assert measured_regime(np.ones(1), np.ones(1), np.ones(1)) == OPEN

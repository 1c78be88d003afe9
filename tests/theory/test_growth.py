"""The growth map says what the laws say: bounded, slow, linear, and the two instabilities."""

import pytest

from refeed.theory import evaluate
from refeed.theory.growth import CURVES, INSTABILITIES, REGIMES, growth_map, regime


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
        ("window of 3", 0.1, "linear"),
        ("fixed real + latest", 0.3, "bounded"),
        ("fresh real + latest, half and half", 0.5, "bounded"),
        ("fresh real + latest, half and half", 0.9, "faster"),
        ("history mixture (accumulate-subsample)", 0.1, "bounded"),
    ],
)
def test_regimes_in_the_long_run(policy, share, expected):
    assert at(policy, share, 32) == expected


def test_the_history_mixture_past_half_grows_as_a_power():
    slow, fast = (at("history mixture (accumulate-subsample)", share, 64) for share in (0.3, 0.8))
    assert slow == "bounded"
    assert REGIMES.index(fast) >= REGIMES.index("linear")


def test_the_instabilities_are_where_the_factors_pass_one():
    share = INSTABILITIES["history mixture (accumulate-subsample)"]
    assert evaluate("regression.history_factor", M=4000, d=round(share * 4000)) == pytest.approx(1, abs=0.01)
    share = INSTABILITIES["fresh real + latest, half and half"]
    assert evaluate("regression.fresh_factor", n_real=2000, n_synthetic=2000, d=round(share * 4000)) == pytest.approx(1, abs=0.01)
    assert set(INSTABILITIES) <= set(CURVES)
    assert [regime(1, 2, 2 + step) for step in (0.5, 1.0, 2.0, 9.0)] == list(REGIMES)

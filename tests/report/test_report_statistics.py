"""Intervals cover what they say, pair by seed, and admit what they cannot."""

import numpy as np
import pytest

from refeed.report.statistics import mean_interval, paired_difference, paired_ratio, slope, t_quantile


@pytest.mark.parametrize(("n", "quantile"), [(2, 12.7062), (3, 4.30265), (5, 2.77645), (400, 1.96592)])
def test_quantile_of_the_tables(n, quantile):
    assert t_quantile(n) == pytest.approx(quantile, rel=1e-5)


def test_interval_of_three_covers_95_percent():
    """4000 intervals of three normal values: 95 % +- 4 standard errors, false-alarm rate 6e-5."""
    values = np.random.default_rng(0).normal(7, 2, (4000, 3))
    covered = np.mean([(e := mean_interval(row)).low <= 7 <= e.high for row in values])
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 4000)


def test_one_lineage_has_no_interval_and_says_so():
    estimate = paired_ratio({3: 4.0}, {3: 2.0})
    assert (estimate.value, estimate.low, estimate.high, estimate.n) == (pytest.approx(2), None, None, 1)
    assert "one lineage, no interval" in estimate.method


def test_pairs_are_by_seed_and_only_common_seeds_count():
    estimate = paired_difference({0: 5.0, 1: 7.0, 9: 100.0}, {1: 1.0, 0: 0.0, 8: 1.0})
    assert (estimate.value, estimate.n, estimate.standard_error) == (5.5, 2, pytest.approx(0.5))
    assert estimate.num_standard_errors == pytest.approx(11)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_ratio_is_geometric():
    estimate = paired_ratio({0: 2.0, 1: 8.0}, {0: 1.0, 1: 1.0})
    assert (estimate.value, estimate.scale) == (pytest.approx(4), "ratio")
    assert estimate.low * estimate.high == pytest.approx(16)


def test_ratio_falls_back_where_values_are_not_positive():
    estimate = paired_ratio({0: 0.5, 1: 0.25}, {0: 0.0, 1: 0.0})
    assert (estimate.scale, estimate.value) == ("difference", 0.375)
    assert "not all positive" in estimate.method


def test_slope_is_exact_on_lines_and_leaves_out_what_is_incomplete():
    generations = np.arange(1, 6)
    values = np.array([2.0 * generations, 4.0 * generations + 1, [1, 1, np.nan, 1, 1]])
    estimate = slope(generations, values, first=2, last=5)
    assert (estimate.value, estimate.n, estimate.scale) == (pytest.approx(3), 2, "slope")
    assert slope(generations, values, first=5, last=5) is None

"""Distances and counts between feature sets: public implementations and known cases are the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from refeed.families.images import estimators


@pytest.fixture
def sets():
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((8, 8))
    return rng.standard_normal((150, 8)) @ mix, rng.standard_normal((140, 8)) @ mix * 0.8 + 0.3


def same_as_given(width):
    module = torch.nn.Identity()
    module.num_features = width
    return module


def test_frechet_distance_agrees_with_torchmetrics(sets):
    from torchmetrics.image.fid import FrechetInceptionDistance

    real, made = sets
    metric = FrechetInceptionDistance(feature=same_as_given(8), normalize=False).set_dtype(torch.float64)
    for features, is_real in ((real, True), (made, False)):
        metric.update(torch.from_numpy(features), real=is_real)
    assert estimators.frechet_distance(real, made) == pytest.approx(float(metric.compute()), rel=1e-6)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_kernel_distance_agrees_with_torchmetrics(sets):
    from torchmetrics.image.kid import KernelInceptionDistance

    real, made = sets[0][:140], sets[1]
    metric = KernelInceptionDistance(feature=same_as_given(8), subsets=1, subset_size=140)
    for features, is_real in ((real, True), (made, False)):
        metric.update(torch.from_numpy(features), real=is_real)
    assert estimators.kernel_distance(real, made) == pytest.approx(float(metric.compute()[0]), rel=1e-4)


@pytest.mark.parametrize("neighbours", [1, 5])
def test_precision_and_recall_agree_with_prdc(sets, neighbours):
    from prdc import compute_prdc

    real, made = sets
    expected = compute_prdc(real_features=real, fake_features=made, nearest_k=neighbours)
    found = estimators.precision_recall(real, made, neighbours=neighbours)
    assert found == pytest.approx({name: float(expected[name]) for name in found})


def test_frechet_distance_of_known_normals():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((4000, 3))
    assert estimators.frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert estimators.frechet_distance(x, x + 2) == pytest.approx(12, rel=1e-9)
    assert estimators.frechet_distance(x, 3 * x) == pytest.approx(4 * np.trace(np.cov(x.T)) + 4 * (x.mean(0) ** 2).sum(), rel=1e-9)


def test_kernel_distance_is_unbiased():
    """The mean over 200 pairs of sets of one distribution is within four of its own standard errors of zero."""
    rng = np.random.default_rng(2)
    found = [estimators.kernel_distance(*rng.standard_normal((2, 30, 4))) for _ in range(200)]
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(200)


def test_vendi_counts_different_things():
    far = np.arange(7.0)[:, None] * 1000
    assert estimators.vendi(far, scale=1.0) == pytest.approx(7)
    assert estimators.vendi(np.zeros((9, 2)), scale=1.0) == pytest.approx(1)
    assert estimators.vendi(np.repeat(far, 3, axis=0), scale=1.0) == pytest.approx(7)


def test_under_collapse_precision_rises_and_recall_and_coverage_fall():
    rng = np.random.default_rng(3)
    real, spread = rng.standard_normal((2, 400, 4))
    narrow = estimators.precision_recall(real, 0.1 * spread)
    wide = estimators.precision_recall(real, spread)
    assert narrow["precision"] > wide["precision"]
    assert narrow["recall"] < 0.2 * wide["recall"]
    assert narrow["coverage"] < 0.5 * wide["coverage"]


def test_squared_distances_and_entropy():
    a, b = np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[3.0, 4.0]])
    assert estimators.squared_distances(a, b) == pytest.approx(np.array([[25.0], [0.0]]))
    assert estimators.median_distance(a) == pytest.approx(5)
    assert estimators.entropy(np.array([2.0, 2.0, 0.0])) == pytest.approx(np.log(2))


def test_nearest_rows_are_found_across_blocks():
    rng = np.random.default_rng(4)
    b = rng.standard_normal((4500, 3))
    squared, place = estimators.nearest(b[[0, 1999, 2000, 4499]] + 1e-6, b)
    assert place.tolist() == [0, 1999, 2000, 4499]
    assert squared == pytest.approx(3e-12, rel=1e-2)

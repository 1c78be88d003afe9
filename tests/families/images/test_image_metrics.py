"""Metrics of images: they see collapse, copies and noise, and hold real rows against real rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from refeed.core.errors import StudyError
from refeed.core.recipes import digest
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.families.images import features, metrics
from refeed.families.images.files import Folder
from refeed.families.images.metrics import AttributeRates, Distances, ImageAudit, TestLoss
from refeed.families.images.source import Faces
from refeed.families.images.worlds import ImageWorld, images_of


@pytest.fixture(scope="module")
def faces_world():
    return Faces(rows=1200, test_rows=300).draw(seed=Seed(0))


@pytest.fixture(scope="module", autouse=True)
def short_judge():
    before, features.JUDGE_IMAGES = features.JUDGE_IMAGES, 12_000
    yield
    features.JUDGE_IMAGES = before


def measured(metric, world, images, model=None):
    found = metric.measure(model, world=world, samples=Rows(image=images), seed=Seed(0))
    assert set(found) <= {quantity.name for quantity in metric.quantities}
    assert all(np.isfinite(value) for value in found.values())
    return found


def real(count, seed=7, **options):
    return images_of(Faces(rows=count, test_rows=1, **options).draw(seed=Seed(seed)).train)


@pytest.mark.parametrize("space", ["attributes", "random-conv", "pixel-pca"])
def test_every_space_sees_that_variety_is_lost(faces_world, space):
    metric, key = Distances(features=space, rows=300), space.replace("-", "_")
    assert metric.name == f"distances_{key}"
    fresh = measured(metric, faces_world, real(300))
    few = measured(metric, faces_world, np.repeat(real(10), 30, axis=0))
    for name in ("recall", "coverage", "vendi"):
        assert few[f"{name}_{key}"] < 0.6 * fresh[f"{name}_{key}"], name
        assert fresh[f"{name}_{key}"] == pytest.approx(fresh[f"{name}_{key}_real"], rel=0.25)
    for name in ("fd", "kid"):
        assert few[f"{name}_{key}"] > 3 * abs(fresh[f"{name}_{key}"]), name
    assert fresh[f"fd_{key}"] < 2.5 * fresh[f"fd_{key}_real"]


class Mean(torch.nn.Module):
    """A feature network of a user: colours, scaled."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(3))

    def forward(self, x):
        return x.mean((2, 3)) * self.scale


def flat():
    return torch.nn.Flatten(0)


def test_a_feature_network_of_ones_own_with_weights_from_a_file(faces_world, tmp_path):
    plain = Distances(features="test_image_metrics:Mean", rows=200)
    assert plain.name == "distances_Mean"
    made = real(200)
    before = measured(plain, faces_world, made)
    torch.save({"scale": torch.full((3,), 2.0)}, tmp_path / "w.pt")
    weighted = replace(plain, weights=str(tmp_path / "w.pt"))
    after = measured(weighted, faces_world, made)
    assert after["fd_Mean"] == pytest.approx(4 * before["fd_Mean"], rel=1e-4)
    assert digest(weighted) != digest(plain)
    (tmp_path / "w.pt").rename(tmp_path / "moved.pt")
    assert digest(replace(plain, weights=str(tmp_path / "moved.pt"))) == digest(weighted)
    with pytest.raises(StudyError, match="cannot be read"):
        digest(replace(plain, weights=str(tmp_path / "none.pt")))
    torch.save({"other": torch.ones(3)}, tmp_path / "bad.pt")
    with pytest.raises(StudyError, match="do not fit"):
        measured(replace(plain, weights=str(tmp_path / "bad.pt")), faces_world, made)
    with pytest.raises(StudyError, match="must give \\(rows, dimensions\\)"):
        measured(Distances(features="test_image_metrics:flat", rows=200), faces_world, made)


def test_estimates_differ_and_are_averaged(faces_world):
    made = real(1000)
    one, three = (measured(Distances(features="random-conv", rows=200, estimates=n), faces_world, made) for n in (1, 3))
    assert one["fd_random_conv_deviation"] == 0
    assert 0 < three["fd_random_conv_deviation"] < three["fd_random_conv"]
    assert three["fd_random_conv"] != one["fd_random_conv"]
    again = measured(Distances(features="random-conv", rows=200), faces_world, made)
    assert again == three


def test_the_judge_tells_attributes_and_is_fitted_once(faces_world, monkeypatch):
    metric = AttributeRates(track=("glasses", "hat"))
    found = measured(metric, faces_world, real(600))
    assert found["judge_accuracy"] > 0.9
    assert found["rate_glasses"] == pytest.approx(0.12, abs=0.06)
    assert found["rare_kept"] > 0.6
    monkeypatch.setattr(features, "_fit_judge", lambda world: pytest.fail("fitted again"))
    without = [image for image, code in zip(images_of(faces_world.train), faces_world.attributes[5].train, strict=True) if not code]
    assert faces_world.attributes[5].name == "glasses"
    found = measured(metric, faces_world, np.stack(without))
    assert found["rate_glasses"] < 0.04
    one_face = measured(metric, faces_world, np.repeat(real(1), 50, axis=0))
    assert one_face["attribute_entropy"] == 0
    assert one_face["values_lost"] == 22 - 8


def test_a_judge_does_not_depend_on_the_process(faces_world):
    one, other = (features._fit_judge(faces_world).features(real(20)) for _ in range(2))
    assert np.array_equal(one, other)


def test_the_audit_sees_copies_spread_and_noise(world, model):
    train = images_of(world.train)
    copies = measured(ImageAudit(), world, train[:60], model)
    assert copies["nearest_train"] == pytest.approx(0, abs=1e-4)
    assert copies["nearest_train_real"] > 0.05
    assert copies["variance_ratio"] == pytest.approx(1, abs=0.1)
    same = measured(ImageAudit(), world, np.repeat(train[:1], 60, axis=0), model)
    assert same["variance_ratio"] == pytest.approx(0, abs=1e-6)
    assert same["duplicates_above_chance"] == pytest.approx(59 / 60)


def test_prior_samples_that_vary_too_little_raise_a_notice(world, model, samples):
    found = measured(ImageAudit(), world, images_of(samples), model)
    ratio = metrics.pixel_variance(images_of(samples)[:120]) / model.spread
    assert found["prior_shortfall"] == pytest.approx(1 - ratio if ratio < 0.6 else 0)
    wide = replace(model, spread=10 * metrics.pixel_variance(images_of(samples)[:120]))
    assert measured(ImageAudit(), world, images_of(samples), wide)["prior_shortfall"] == pytest.approx(0.9)
    (quantity,) = [q for q in ImageAudit.quantities if q.name == "prior_shortfall"]
    assert "noise of the decoder" in quantity.notice


def test_the_loss_has_its_quantities(model, world):
    found = TestLoss().measure(model, world=world, samples=None, seed=Seed(0))
    assert set(found) == {quantity.name for quantity in TestLoss.quantities}


def test_references_are_quantities():
    for metric in (TestLoss(), ImageAudit(), Distances(), AttributeRates(track=("hat",))):
        names = [quantity.name for quantity in metric.quantities]
        assert len(set(names)) == len(names)
        assert {q.reference for q in metric.quantities if q.reference} <= set(names)


def test_what_cannot_be_measured_is_refused(world, faces_world):
    bare = ImageWorld(train=world.train, test=world.test)
    with pytest.raises(StudyError, match="needs images with attributes"):
        measured(Distances(features="attributes", rows=50), bare, real(60, size=16))
    assert Distances(features="attributes").needs == {"samples", "attributes"}
    with pytest.raises(StudyError, match="moustache, which this source does not have"):
        measured(AttributeRates(track=("moustache",)), faces_world, real(10))
    with pytest.raises(StudyError, match="moustache, which this source does not have"):
        AttributeRates(track=("moustache",)).check(source=Faces(), learner=None)
    AttributeRates(track=("hat",)).check(source=Faces(), learner=None)
    AttributeRates(track=("hat",)).check(source=Folder(), learner=None)  # a source whose path is not set yet
    with pytest.raises(StudyError, match="the policy samples none"):
        ImageAudit().measure(None, world=world, samples=None, seed=Seed(0))
    with pytest.raises(StudyError, match="features must be"):
        Distances(features="inception")
    with pytest.raises(StudyError, match="has its own weights"):
        Distances(features="pixel-pca", weights="w.pt")
    with pytest.raises(StudyError, match="neighbours < rows"):
        Distances(neighbours=0)

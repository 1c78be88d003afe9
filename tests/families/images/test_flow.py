"""Flow matching: on the same interface as the VAE, exact where the velocity is known, saved bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from refeed.core.errors import StudyError
from refeed.core.seeds import Seed
from refeed.families.images.exhibit import portrait
from refeed.families.images.flow import FlowMatching
from refeed.families.images.flow_model import FlowModel, UNet
from refeed.families.images.metrics import ImageAudit, TestLoss
from refeed.families.images.sampler import Prior
from refeed.families.images.worlds import images_of


@pytest.fixture(scope="module")
def flow_learner():
    return FlowMatching(channels=(8, 16), steps=40, batch=16, sampling_steps=3)


@pytest.fixture(scope="module")
def flow(flow_learner, data, world):
    return flow_learner.fit(data, world=world, seed=Seed(1))


def test_training_lowers_the_loss(flow, world):
    fresh = FlowModel(net=UNet(image_channels=3, channels=(8, 16)).eval(), config=flow.config)
    images = images_of(world.test)
    assert flow.test_loss(images, seed=Seed(0))["loss"] < 0.8 * fresh.test_loss(images, seed=Seed(0))["loss"]


def test_a_fit_is_a_function_of_its_seed(flow, flow_learner, data, world):
    again = flow_learner.fit(data, world=world, seed=Seed(1))
    assert all(torch.equal(a, b) for a, b in zip(flow.net.state_dict().values(), again.net.state_dict().values(), strict=True))


def test_it_is_saved_and_read_bit_for_bit(flow, flow_learner, world, tmp_path):
    flow.save(tmp_path)
    one, other = (Prior().sample(m, 7, world=world, seed=Seed(3)) for m in (flow, flow_learner.load(tmp_path)))
    assert images_of(one).shape == (7, 16, 16, 3)
    assert np.array_equal(images_of(one), images_of(other))
    assert len(Prior().sample(flow, 0, world=world, seed=Seed(0))) == 0


def test_the_midpoint_rule_carries_noise_along_a_known_velocity(flow):
    """v(x, t) = 2t carries x by exactly 1, as the midpoint rule is exact for velocities linear in time."""

    def velocity(x, t):
        return (2 * t)[:, None, None, None].expand_as(x)

    carried = FlowModel(net=velocity, config=flow.config).images(np.full((2, 3, 16, 16), -1.0, dtype=np.float32))
    assert (carried == 128).all()


def test_metrics_and_portraits_serve_it_as_they_serve_the_vae(flow, world):
    samples = Prior().sample(flow, 60, world=world, seed=Seed(0))
    assert set(TestLoss().measure(flow, world=world, samples=None, seed=Seed(0))) == {"loss"}
    audit = ImageAudit().measure(flow, world=world, samples=samples, seed=Seed(0))
    assert "variance_ratio" in audit
    assert "prior_shortfall" not in audit  # a flow has no reconstructions to fall short of
    assert set(portrait(flow, world=world, rows=samples)) == {
        "mean and deviation",
        "the same noise",
        "samples above the nearest training image",
    }


def test_impossible_options_are_refused():
    for wrong, message in (({"channels": (9,)}, "multiples of 8"), ({"sampling_steps": 0}, "sampling_steps")):
        with pytest.raises(StudyError, match=message):
            FlowMatching(**wrong)

"""Variational auto-encoders: deterministic, saved bit for bit, with the loss they say they have; and how they are sampled."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from images_toy import data_of
from torch import nn

from refeed.core.batches import batches
from refeed.core.errors import StudyError
from refeed.core.protocols import Data
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.families.images.files import Array
from refeed.families.images.flow import FlowMatching
from refeed.families.images.learner import VAE, paper, smoke
from refeed.families.images.model import VAEModel
from refeed.families.images.nets import ConvVAE, kl_to_prior
from refeed.families.images.sampler import Prior
from refeed.families.images.source import Faces
from refeed.families.images.training import learning_rates, to_bytes, unit
from refeed.families.images.worlds import images_of


def state(model):
    return {name: tensor.clone() for name, tensor in model.net.state_dict().items()}


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_fit_is_a_function_of_rows_and_seed(learner, data, world):
    short = replace(learner, steps=8)
    first = short.fit(data, world=world, seed=Seed(1))
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    again = short.fit(data, world=world, seed=Seed(1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert equal(state(first), state(again))
    assert first.spread == again.spread
    assert not equal(state(first), state(short.fit(data, world=world, seed=Seed(2))))


def test_training_lowers_the_loss(learner, data, world, model):
    images = images_of(world.test)
    early = replace(learner, steps=5).fit(data, world=world, seed=Seed(1)).test_loss(images, seed=Seed(0))
    late = model.test_loss(images, seed=Seed(0))
    assert late["loss"] < 0.6 * early["loss"]
    assert late["loss"] == pytest.approx(late["reconstruction"] + 0.00025 * late["kl"], rel=1e-6)
    assert late["reconstruction_at_mean"] < late["reconstruction"]
    assert 0 < late["active_units"] <= learner.latent


def test_it_is_saved_and_read_bit_for_bit(model, learner, world, tmp_path):
    model.save(tmp_path)
    back = learner.load(tmp_path)
    assert equal(state(model), state(back))
    assert (back.config, back.spread) == (model.config, model.spread)
    one, other = (Prior().sample(m, 30, world=world, seed=Seed(3)) for m in (model, back))
    assert np.array_equal(images_of(one), images_of(other))
    assert model.test_loss(images_of(world.test), seed=Seed(0)) == back.test_loss(images_of(world.test), seed=Seed(0))


@pytest.mark.parametrize("num_rows", [0, 1, 37])
def test_samples_are_as_many_bytes_images_as_asked_for(model, world, num_rows):
    before = torch.random.get_rng_state()
    rows = Prior().sample(model, num_rows, world=world, seed=Seed(3))
    assert images_of(rows).shape == (num_rows, 16, 16, 3)
    assert images_of(rows).dtype == np.uint8
    assert torch.equal(before, torch.random.get_rng_state())


def test_samples_differ_by_seed_and_row(model, world, samples):
    again = Prior().sample(model, 200, world=world, seed=Seed(2))
    other = Prior().sample(model, 200, world=world, seed=Seed(4))
    assert np.array_equal(images_of(samples), images_of(again))
    assert not np.array_equal(images_of(samples), images_of(other))
    assert len({image.tobytes() for image in images_of(samples)}) == 200


def test_sampling_is_in_evaluation_mode(model, world, samples):
    before = state(model)
    Prior().sample(model, 10, world=world, seed=Seed(2))
    assert not model.net.training
    assert equal(before, state(model))


def test_bytes_are_clamped_and_rounded_on_a_fixed_scale():
    x = torch.tensor([-1.0, 0.0, 0.4 / 255, 0.6 / 255, 0.5, 1.0, 7.0]).reshape(1, 1, 1, 7)
    assert to_bytes(x).ravel().tolist() == [0, 0, 0, 1, 128, 255, 255]
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1)
    assert np.array_equal(to_bytes(unit(every)), every.numpy())


def test_kl_is_that_of_two_normals():
    mean, log_variance = torch.tensor([[0.0, 1.5]], dtype=torch.float64), torch.tensor([[0.0, -0.7]], dtype=torch.float64)
    p = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(p, torch.distributions.Normal(0.0, 1.0))
    assert torch.allclose(kl_to_prior(mean, log_variance), expected)


def test_a_gaussian_likelihood_is_nats_a_pixel_and_learns_its_deviation(data, world):
    learner = VAE(channels=(16, 32), latent=6, head=8, steps=60, likelihood="gaussian", learning_rate=1e-2)
    model = learner.fit(data, world=world, seed=Seed(1))
    found = model.test_loss(images_of(world.test), seed=Seed(0))
    scale = math.exp(model.log_scale.item())
    nats = 0.5 * math.log(2 * math.pi * scale**2) + found["reconstruction"] / (2 * scale**2)
    assert found["loss"] == pytest.approx(nats + found["kl"] / (16 * 16 * 3), rel=1e-5)
    assert abs(scale - 0.1) > 0.01
    plain = Prior().sample(model, 20, world=world, seed=Seed(0))
    noisy = Prior(observation_noise=True).sample(model, 20, world=world, seed=Seed(0))
    difference = (images_of(noisy).astype(float) - images_of(plain)) / 255
    assert 0.5 * scale < difference.std() < 1.2 * scale


def test_weights_scale_the_loss_of_their_rows(source, world, learner):
    equally = learner.fit(data_of(source, world, (2.0, 2.0)), world=world, seed=Seed(1))
    plain = learner.fit(data_of(source, world, (1.0, 1.0)), world=world, seed=Seed(1))
    apart = learner.fit(data_of(source, world, (0.0, 1.0)), world=world, seed=Seed(1))
    assert equal(state(equally), state(plain))
    assert not equal(state(apart), state(plain))


def test_epochs_follow_the_rows_and_steps_do_not(learner, source, world, monkeypatch):
    seen = []
    monkeypatch.setattr("refeed.core.progress.tick", lambda done, total, unit: seen.append(total))
    for options, expected in (({"epochs": 2, "steps": None}, 20), ({"steps": 3}, 3)):
        seen.clear()
        replace(learner, **options).fit(data_of(source, world), world=world, seed=Seed(0))
        assert seen == [expected] * expected
    order = list(batches(10, batch=4, num_steps=6, seed=Seed(0)))
    assert sorted(np.concatenate(order[:3])) == sorted(np.concatenate(order[3:])) == list(range(10))
    assert not np.array_equal(order[0], order[3])


def test_learning_rates():
    cycle = list(learning_rates("cycle", 1.0, num_steps=100, steps_per_epoch=10, decay=0.5))
    assert (cycle[0], cycle[9], cycle[10]) == (0.1, 1.0, 1.0)
    assert 0 < cycle[-1] < 0.001
    assert list(learning_rates("exponential", 1.0, num_steps=4, steps_per_epoch=2, decay=0.5)) == [1, 1, 0.5, 0.5]


class Own(nn.Module):
    """A VAE of the user's: one linear layer each way."""

    def __init__(self, *, size, image_channels, latent):
        super().__init__()
        self.shape, values = (image_channels, size, size), image_channels * size * size
        self.there, self.back = nn.Linear(values, 2 * latent), nn.Linear(latent, values)

    def encode(self, x):
        return self.there(x.flatten(1)).chunk(2, dim=1)

    def decode(self, z):
        return self.back(z).view(-1, *self.shape)


def Bare(*, size, image_channels, latent):
    return nn.Linear(size, latent)


def test_a_net_of_ones_own_plugs_in(data, world, tmp_path):
    learner = VAE(net="test_vae:Own", latent=3, steps=5)
    model = learner.fit(data, world=world, seed=Seed(0))
    model.save(tmp_path)
    one, other = (Prior().sample(m, 5, world=world, seed=Seed(0)) for m in (model, learner.load(tmp_path)))
    assert np.array_equal(images_of(one), images_of(other))
    wrong = {"nowhere:Net": "cannot be imported", "images_toy:data_of": "cannot be called", "test_vae:smoke": "cannot be called"}
    for net, message in (wrong | {"test_vae:Bare": "has no method encode and no decode"}).items():
        with pytest.raises(StudyError, match=message):
            VAE(net=net, steps=1).fit(data, world=world, seed=Seed(0))


def test_the_paper_preset_is_the_published_network():
    learner = paper()
    net = ConvVAE(size=64, image_channels=3, channels=learner.channels, latent=learner.latent, head=learner.head, tanh=True)
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(3.94e6, rel=0.01)
    assert (learner.epochs, learner.learning_rate, learner.decay, learner.schedule) == (100, 0.005, 0.95, "exponential")
    x = torch.zeros(2, 3, 64, 64)
    assert net.decode(net.encode(x)[0]).shape == x.shape
    assert smoke().steps == 20


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"latent": 0}, "latent"),
        ({"steps": 0}, "steps"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"likelihood": "laplace"}, "likelihood"),
        ({"kl_weight": -1.0}, "kl_weight"),
        ({"channels": ()}, "channels"),
        ({"schedule": "none"}, "schedule"),
        ({"decay": 0.0}, "decay"),
    ],
)
def test_impossible_options_are_refused(wrong, message):
    with pytest.raises(StudyError, match=message):
        VAE(**wrong)


def test_images_that_cannot_be_halved_are_refused(data, world):
    with pytest.raises(StudyError, match="16 x 16 cannot be halved 5 times"):
        VAE(channels=(8,) * 5).fit(data, world=world, seed=Seed(0))
    with pytest.raises(StudyError, match="temperature"):
        Prior(temperature=0.0)


def test_a_start_is_continued(learner, data, world, model):
    on = replace(learner, steps=1, learning_rate=1e-9).fit(data, world=world, seed=Seed(5), start=model)
    weights, before = state(on), state(model)
    assert all(torch.allclose(weights[n], before[n], atol=1e-6) for n in weights if "running" not in n and "num_" not in n)


def test_a_diverging_fit_is_an_outcome(learner, world, data):
    from refeed.core.errors import Stopped

    with pytest.raises(Stopped, match=r"diverged|non-finite"):
        replace(learner, learning_rate=1e12, steps=40, schedule="exponential").fit(data, world=world, seed=Seed(0))


def test_models_are_of_one_class(model):
    assert isinstance(model, VAEModel)
    assert isinstance(Data, type)
    assert isinstance(Prior().sample(model, 1, world=None, seed=Seed(0)), Rows)


@pytest.mark.parametrize("parts", [1, 2, 3, 9])
def test_images_drawn_in_parts_are_the_images_drawn_at_once(model, world, parts, monkeypatch):
    monkeypatch.setattr("refeed.families.images.sampler.CHUNK", 8)
    net = replace(model, config=model.config | {"likelihood": "gaussian"})
    monkeypatch.setattr(type(net), "log_scale", torch.tensor(-2.0), raising=False)
    for sampler in (Prior(), Prior(observation_noise=True)):
        whole = sampler.sample(net, 35, world=world, seed=Seed(3))
        drawn = [sampler.sample_part(net, 35, part=(part, parts), world=world, seed=Seed(3)) for part in range(parts)]
        order = np.argsort(np.concatenate([rows["refeed_position"] for rows in drawn]))
        assert np.array_equal(np.concatenate([rows["image"] for rows in drawn])[order], whole["image"])
        assert sorted(order.tolist()) == list(range(35))


@pytest.mark.parametrize("learner", [VAE(), FlowMatching(channels=(8, 8, 8, 8))])
def test_sides_that_cannot_be_halved_are_refused_before_anything_runs(learner):
    learner.check(source=Faces(size=24), start="scratch")
    learner.check(source=Array(path="x.npy"), start="scratch")  # whose size is known only when it is read
    with pytest.raises(StudyError, match="images of 28 x 28 cannot be halved 3 times"):
        learner.check(source=Faces(size=28), start="scratch")
    VAE(net="own:Net").check(source=Faces(size=28), start="scratch")

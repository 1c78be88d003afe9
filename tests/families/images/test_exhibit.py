"""What the report shows: the same inputs for every model, on one scale, as PNG."""

from __future__ import annotations

import base64
import io

import numpy as np
import torch
from PIL import Image

from refeed.families.images import exhibit
from refeed.families.images.nets import kl_to_prior
from refeed.families.images.training import bytes_tensor, unit
from refeed.families.images.worlds import images_of


def decoded(uri):
    assert uri.startswith("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_images_are_shown_as_they_are(world, samples):
    shown = exhibit.images(samples, world=world, count=5)
    assert len(shown) == 5
    assert np.array_equal(decoded(shown[0]), images_of(samples)[0])
    grey = images_of(samples)[0, :, :, :1]
    assert np.array_equal(decoded(exhibit.data_uri(grey)), grey[..., 0])


def test_every_model_sees_the_same_noise_and_the_same_images(model, world, samples):
    first, again = (exhibit.portrait(model, world=world, rows=samples) for _ in range(2))
    assert first == again
    assert len(first["the same noise"]) == len(first["held-out images, reconstructed"]) == 12
    real = exhibit.portrait(None, world=world, rows=world.train)
    assert np.array_equal(decoded(real["held-out images, reconstructed"][3]), exhibit.fixed(world)[3])
    assert np.array_equal(decoded(real["the same noise"][0]), images_of(world.train)[0])


def test_rare_attributes_are_among_the_images_shown(world):
    shown = {image.tobytes() for image in exhibit.fixed(world)}
    assert len(shown) == 12
    for name in ("glasses", "hat"):
        (attribute,) = [a for a in world.attributes if a.name == name]
        with_it = {image.tobytes() for image in images_of(world.test)[attribute.test == 1]}
        assert with_it & shown


def test_nearest_training_images_are_the_nearest(model, world):
    train = images_of(world.train)
    lines = exhibit.portrait(model, world=world, rows=world.train.take(np.arange(12)))["samples above the nearest training image"]
    assert np.array_equal(decoded(lines[2])[:16], train[2])  # above, the sample; below, its nearest: itself
    assert np.array_equal(decoded(lines[2])[16:], train[2])


def test_mean_and_deviation():
    images = np.zeros((2, 1, 1, 3), dtype=np.uint8)
    images[1] = [255, 51, 0]
    mean, deviation = exhibit.mean_and_deviation(images)
    assert mean.ravel().tolist() == [128, 26, 0]
    assert deviation.ravel().tolist() == [255, 51, 0]


def test_traversals_move_one_dimension_of_z_at_a_time(model, world, samples):
    panel = exhibit.portrait(model, world=world, rows=samples)[exhibit.TRAVERSED]
    steps = np.stack([decoded(uri) for uri in panel])
    assert len(steps) == 12
    first, second = steps[:6].astype(float), steps[6:].astype(float)
    assert np.abs(np.diff(first, axis=0)).mean(axis=(1, 2, 3)).min() > 0
    with torch.inference_mode():
        kl_Z = kl_to_prior(*model.net.encode(unit(bytes_tensor(exhibit.fixed(world))))).mean(0)
    ends = np.zeros((2, model.config["latent"]), dtype=np.float32)
    ends[:, int(kl_Z.argmax())] = (-2.5, 2.5)  # the dimension that the model uses most comes first
    assert np.array_equal(model.traverse(exhibit.fixed(world), dimensions=1, steps=2), model.images(ends))
    assert not np.array_equal(first, second)

"""Images for people to look at: as they are, on one scale, as PNG data URIs."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np

from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.families.images.estimators import nearest
from refeed.families.images.worlds import ImageWorld, images_of

if TYPE_CHECKING:
    from refeed.families.images.model import ImageModel

LOOK = Seed(0) / "images" / "look"  # the same noise for every model, so that columns can be compared across generations
ACROSS = 12
RECONSTRUCTED = "held-out images, reconstructed"
TRAVERSED = "the two most used dimensions of z, each from -2.5 to 2.5"


def images(rows: Rows, *, world: ImageWorld, count: int) -> list[str]:
    """The first `count` images."""
    return [data_uri(image) for image in images_of(rows)[:count]]


def portrait(model: ImageModel | None, *, world: ImageWorld, rows: Rows) -> dict[str, list[str]]:
    """What a model makes of the same noise and of the same held-out images as every other model, and how its samples `rows` lie.

    Without a model, the real row on top of each: real `rows`, the held-out images themselves, the mean and deviation of real rows.
    """
    shown = fixed(world)
    lie = {"mean and deviation": [data_uri(image) for image in mean_and_deviation(images_of(rows))]}
    if model is None:
        return {
            "the same noise": images(rows, world=world, count=ACROSS),
            RECONSTRUCTED: [data_uri(image) for image in shown],
        } | lie
    noise = LOOK.generator().standard_normal((ACROSS, *model.noise_shape), dtype=np.float32)
    panels = {"the same noise": [data_uri(image) for image in model.images(noise)]}
    if hasattr(model, "reconstruct"):
        panels[RECONSTRUCTED] = [data_uri(image) for image in model.reconstruct(shown)]
    if hasattr(model, "traverse"):
        panels[TRAVERSED] = [data_uri(image) for image in model.traverse(shown, dimensions=2, steps=ACROSS // 2)]
    panels["samples above the nearest training image"] = nearest_training(images_of(rows)[:ACROSS], images_of(world.train))
    return panels | lie


def fixed(world: ImageWorld) -> np.ndarray:
    """Twelve held-out images: first one of each of the rarest attribute values, the rest in order."""
    rarity = [
        (rate, number, code)
        for number, attribute in enumerate(world.attributes)
        for code, rate in enumerate(attribute.rates(attribute.test))
        if 0 < rate <= 0.15
    ]
    chosen: list[int] = []
    for _, number, code in sorted(rarity)[: ACROSS // 2]:
        with_it = np.flatnonzero(world.attributes[number].test == code)
        chosen += [int(row) for row in with_it[~np.isin(with_it, chosen)][:1]]
    others = [row for row in range(len(world.test)) if row not in chosen]
    return images_of(world.test)[(chosen + others)[:ACROSS]]


def nearest_training(images_NHWC: np.ndarray, train_NHWC: np.ndarray) -> list[str]:
    """Each image above the real training image nearest to it in pixels."""
    _, closest = nearest(images_NHWC.reshape(len(images_NHWC), -1), train_NHWC.reshape(len(train_NHWC), -1))
    return [data_uri(np.concatenate([image, train_NHWC[row]])) for image, row in zip(images_NHWC, closest, strict=True)]


def mean_and_deviation(images_NHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean image, and the standard deviation of each pixel value over images on a scale where white is 0.5."""
    values = images_NHWC.astype(np.float32) / 255
    deviation = np.clip(2 * values.std(0, dtype=np.float64), 0, 1)
    return np.rint(255 * values.mean(0, dtype=np.float64)).astype(np.uint8), np.rint(255 * deviation).astype(np.uint8)


def data_uri(image: np.ndarray) -> str:
    """A (H, W, C) uint8 image as a PNG data URI."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, "PNG", optimize=False)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"

"""Named feature spaces in which sets of images are compared, none of them downloaded.

"attributes": the last hidden layer of a small network that tells the real training rows' attributes (the judge); needs labels.
"random-conv": convolutional networks with random weights, fixed once and for all. "pixel-pca": the first principal components of
the real training pixels. `module:callable`: a network of the user's, with weights from a file. A distance means nothing without
the name of its space, and none of the first three is the published FID's.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from refeed.core.errors import StudyError
from refeed.core.seeds import Seed
from refeed.families.images.plugged import imported
from refeed.families.images.training import autocast, batches, bytes_tensor, device, learning_rates, seeded, unit
from refeed.families.images.worlds import Attribute, ImageWorld, images_of

Extract = Callable[[np.ndarray], np.ndarray]  # (rows, H, W, C) uint8 -> (rows, dimensions) float32
ROOT = Seed(0) / "images"
BATCH = 250
JUDGE_IMAGES = 40_000  # images that the judge sees in training, whatever the number of rows
COMPONENTS = 64

_remembered: dict[tuple[str, str], Any] = {}


def extractor(space: str, world: ImageWorld, *, number: int = 0, weights: str = "") -> Extract:
    """The features of a space for the images of a world; `number` chooses among the networks of random-conv."""
    if space == "attributes":
        return judge_of(world).features
    if space == "pixel-pca":
        return _once(space, world, lambda: _pixel_pca(world))
    if space == "random-conv":
        return _random_conv(world.channels, number)
    return _own(space, weights)


def judge_of(world: ImageWorld) -> Judge:
    """The attribute network of a world: fitted once in a process, from its training rows and labels alone."""
    if not world.attributes:
        raise StudyError(
            "the attribute network needs images with attributes, and this source has none",
            hint="Use another feature space: random-conv or pixel-pca.",
        )
    return _once("judge", world, lambda: _fit_judge(world))


def _once(what: str, world: ImageWorld, make: Callable[[], Any]) -> Any:
    """`make()`, remembered by the content of the training rows; the last four are kept."""
    content = blake2b(np.ascontiguousarray(images_of(world.train)).tobytes(), digest_size=16)
    for attribute in world.attributes:
        content.update(attribute.name.encode() + attribute.train.tobytes())
    key = (what, content.hexdigest())
    if key not in _remembered:
        while len(_remembered) >= 4:
            _remembered.pop(next(iter(_remembered)))
        _remembered[key] = make()
    return _remembered[key]


class Judge:
    """Tells the attributes of an image, and gives the features by which it does."""

    def __init__(self, net: nn.Module, attributes: tuple[Attribute, ...]) -> None:
        self._net, self._attributes = net, attributes

    def features(self, images: np.ndarray) -> np.ndarray:
        return self._run(images)[0]

    def codes(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """The likeliest value of each attribute: (rows,) uint8."""
        logits = self._run(images)[1]
        ends = np.cumsum([len(attribute.values) for attribute in self._attributes])[:-1]
        parts = np.split(logits, ends, axis=1)
        return {a.name: part.argmax(1).astype(np.uint8) for a, part in zip(self._attributes, parts, strict=True)}

    def _run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features, logits = [], []
        for first in range(0, len(images), BATCH):
            with torch.inference_mode():
                hidden = self._net.hidden(unit(bytes_tensor(images[first : first + BATCH]).to(device())))
                features.append(hidden.cpu().numpy())
                logits.append(self._net.heads(hidden).cpu().numpy())
        return np.concatenate(features), np.concatenate(logits)


class _Tower(nn.Module):
    """Four convolutions, each halving the sides, their mean and 64 hidden units; one linear layer for all attributes."""

    def __init__(self, image_channels: int, size: int, num_logits: int) -> None:
        super().__init__()
        widths = [image_channels, 24, 48, 96, 96]
        side = size
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b), nn.ReLU()]
            side = -(-side // 2)
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(96 * side * side, 64))
        self.heads = nn.Linear(64, num_logits)

    def hidden(self, x_BCHW: Tensor) -> Tensor:
        return torch.relu(self.body(x_BCHW))


def _fit_judge(world: ImageWorld) -> Judge:
    """Cross-entropy summed over attributes, one-cycle Adam, on rows half of which are blurred or noised.

    Samples of a VAE are blurred and noisy where photographs are not; a judge that saw neither would read both as attributes.
    """
    images = bytes_tensor(images_of(world.train)).to(device())
    labels = torch.from_numpy(np.stack([a.train for a in world.attributes], 1).astype(np.int64)).to(device())
    sizes = [len(a.values) for a in world.attributes]
    net = seeded(ROOT / "judge", lambda: _Tower(world.channels, world.size, sum(sizes)))
    batch, peak = 64, 3e-3
    num_steps = JUDGE_IMAGES // batch
    optimizer = torch.optim.Adam(net.parameters(), lr=peak, fused=True)
    generator = torch.Generator(device=device()).manual_seed((ROOT / "judge" / "noise").integer())
    rates = learning_rates("cycle", peak, num_steps=num_steps, steps_per_epoch=num_steps, decay=1.0)
    order = batches(len(images), batch=batch, num_steps=num_steps, seed=ROOT / "judge" / "order")
    for chosen, rate in zip(order, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        index = torch.from_numpy(chosen).to(device())
        with autocast("auto"):
            logits = net.heads(net.hidden(_worn(unit(images[index]), generator))).float()
        parts = zip(logits.split(sizes, 1), labels[index].unbind(1), strict=True)
        loss = torch.stack([nn.functional.cross_entropy(part, label) for part, label in parts]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Judge(net.eval(), world.attributes)


def _worn(x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the images blurred by a random share, and noise of a random strength up to 0.1 on all."""
    strength = torch.rand((2, len(x_BCHW), 1, 1, 1), generator=generator, device=x_BCHW.device)
    blurred = nn.functional.avg_pool2d(nn.functional.pad(x_BCHW, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    x = x_BCHW + (2 * strength[0] - 1).clamp(min=0) * (blurred - x_BCHW)
    return x + 0.1 * strength[1] * torch.randn(x.shape, generator=generator, device=x.device)


@lru_cache(maxsize=8)
def _random_conv(image_channels: int, number: int) -> Extract:
    """Three random convolutions (He et al.'s scale) with ReLU: mean and deviation over the image of each of 64 channels."""

    def make() -> nn.Module:
        widths = [image_channels, 32, 64, 64]
        layers = [nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths)]
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        return nn.ModuleList(layers)

    net = seeded(ROOT / "random-conv" / number, make)

    def features(x_BCHW: Tensor) -> Tensor:
        x = x_BCHW - 0.5
        for layer in net:
            x = torch.relu(layer(x))
        return torch.cat([x.mean((2, 3)), x.var((2, 3), correction=0).sqrt()], 1)

    return _in_batches(features)


@lru_cache(maxsize=2)
def _own(target: str, weights: str) -> Extract:
    """The network that the user's callable makes, with the state in the file `weights`, in evaluation mode."""
    net = imported(target, "the features of metric 'distances'")()
    if weights:
        try:
            net.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
        except (OSError, RuntimeError, pickle.UnpicklingError) as error:
            raise StudyError(f"the weights {weights} do not fit {target}: {str(error).splitlines()[0]}") from None
    net = net.to(device()).eval()

    def features(x_BCHW: Tensor) -> Tensor:
        found = net(x_BCHW)
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(x_BCHW):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise StudyError(f"{target} must give (rows, dimensions) for {len(x_BCHW)} images, not {shape}")
        return found.float()

    return _in_batches(features)


def _in_batches(features: Callable[[Tensor], Tensor]) -> Extract:
    def extract(images: np.ndarray) -> np.ndarray:
        made = []
        for first in range(0, len(images), BATCH):
            with torch.inference_mode():
                made.append(features(unit(bytes_tensor(images[first : first + BATCH]).to(device()))).cpu().numpy())
        return np.concatenate(made)

    return extract


def _pixel_pca(world: ImageWorld) -> Extract:
    flat = images_of(world.train).reshape(len(world.train), -1).astype(np.float32) / 255
    mean = flat.mean(0)
    _, _, directions = np.linalg.svd(flat[:2000] - mean, full_matrices=False)
    basis = directions[:COMPONENTS].T

    def features(images: np.ndarray) -> np.ndarray:
        return (images.reshape(len(images), -1).astype(np.float32) / 255 - mean) @ basis

    return features

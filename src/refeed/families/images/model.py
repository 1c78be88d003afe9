"""A fitted VAE: decoding noise, reconstructing, and its loss on images it has not seen."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from refeed.core.errors import StudyError
from refeed.core.seeds import Seed
from refeed.families.images.nets import ConvVAE, kl_to_prior
from refeed.families.images.plugged import imported
from refeed.families.images.training import bytes_tensor, device, to_bytes, unit

BATCH = 250
SPREAD_ROWS = 1000


class ImageModel(Protocol):
    """What samplers, metrics and the report ask of a model of images, whatever it is inside."""

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """The shape of the standard normal noise that makes one image."""
        ...

    def images(self, noise: np.ndarray, *, seed: Seed | None = None) -> np.ndarray:
        """(rows, *noise_shape) to (rows, H, W, C) uint8, in evaluation mode; `seed` adds the likelihood's own noise, if any."""
        ...

    def test_loss(self, images: np.ndarray, *, seed: Seed) -> dict[str, float]: ...

    def save(self, folder: Path) -> None: ...


def build(config: dict[str, Any]) -> Any:
    """The network of a configuration: ours, or the callable that its `net` names."""
    if not config["net"]:
        names = ("size", "image_channels", "channels", "latent", "head", "tanh")
        return ConvVAE(**{name: config[name] for name in names})
    make = imported(config["net"], "learner.net")
    try:
        net = make(size=config["size"], image_channels=config["image_channels"], latent=config["latent"])
    except TypeError as error:
        raise StudyError(
            f"learner.net = {config['net']!r} cannot be called with size, image_channels and latent: {error}"
        ) from None
    lacking = [part for part in ("encode", "decode") if not callable(getattr(net, part, None))]
    if lacking:
        raise StudyError(f"learner.net = {config['net']!r} has no method {' and no '.join(lacking)}")
    return net


@dataclass(frozen=True, eq=False, kw_only=True)
class VAEModel:
    """p(x) = integral of p(x | z) N(z; 0, 1) dz, and the approximate posterior q(z | x)."""

    net: Any
    config: dict[str, Any]
    spread: float = math.nan  # pixel variance of the reconstructions of its own training rows, see `with_spread`

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return (self.config["latent"],)

    @property
    def log_scale(self) -> Any:
        """log s of the Gaussian likelihood."""
        scale = getattr(self.net, "log_scale", None)
        if scale is None:
            raise StudyError("learner.likelihood = 'gaussian' needs a net with a parameter log_scale")
        return scale

    def training_loss(self, x_BCHW: Tensor, weights_B: Tensor | None, generator: torch.Generator) -> Tensor:
        terms = self._terms(x_BCHW, generator)
        loss_B = self._loss(terms["squared"], terms["kl_BZ"].sum(1), x_BCHW[0].numel())
        return loss_B.mean() if weights_B is None else (loss_B * weights_B).mean()

    def test_loss(self, images: np.ndarray, *, seed: Seed) -> dict[str, float]:
        """The loss it was fitted by on other images, float32, evaluation mode, and its two terms.

        `loss`, `reconstruction` (mean squared error a pixel value) and `kl` (nats an image) with z drawn from q(z | x);
        `reconstruction_at_mean` with z at its mean; `active_units`: dimensions of z with a KL above 0.1 nats on average.
        """
        generator = torch.Generator(device=device()).manual_seed(seed.integer())
        squared, at_mean, kl = [], [], []
        for x in self._batches(images):
            with torch.inference_mode():
                terms = self._terms(x, generator)
                squared.append(terms["squared"])
                at_mean.append((self.net.decode(terms["mean"]).float() - x).square().mean((1, 2, 3)))
                kl.append(terms["kl_BZ"])
        squared_B, kl_BZ = torch.cat(squared).double(), torch.cat(kl).double()
        with torch.inference_mode():
            loss = self._loss(squared_B, kl_BZ.sum(1), images[0].size).mean()
        return {
            "loss": float(loss),
            "reconstruction": float(squared_B.mean()),
            "kl": float(kl_BZ.sum(1).mean()),
            "reconstruction_at_mean": float(torch.cat(at_mean).double().mean()),
            "active_units": float((kl_BZ.mean(0) > 0.1).sum()),
        }

    def images(self, noise: np.ndarray, *, seed: Seed | None = None) -> np.ndarray:
        made = []
        for first in range(0, len(noise), BATCH):
            with torch.inference_mode():
                x = self.net.decode(torch.from_numpy(noise[first : first + BATCH]).to(device())).float()
                if seed is not None and self.config["likelihood"] == "gaussian":
                    generator = torch.Generator(device=device()).manual_seed((seed / first).integer())
                    x = x + self.log_scale.exp() * torch.randn(x.shape, generator=generator, device=device())
            made.append(to_bytes(x))
        return np.concatenate(made) if made else np.zeros((0, *self._shape), dtype=np.uint8)

    def reconstruct(self, images: np.ndarray) -> np.ndarray:
        """Each image through the mean of q(z | x) and back: uint8, as they came."""
        made = []
        for x in self._batches(images):
            with torch.inference_mode():
                made.append(to_bytes(self.net.decode(self.net.encode(x)[0])))
        return np.concatenate(made)

    def traverse(self, images: np.ndarray, *, dimensions: int, steps: int) -> np.ndarray:
        """What one dimension of z does: from z = 0, the `dimensions` that `images` use most (by mean KL), each from -2.5 to 2.5.

        (dimensions x steps, H, W, C) uint8, one dimension after the other.
        """
        with torch.inference_mode():
            kl_Z = torch.cat([kl_to_prior(*(part.float() for part in self.net.encode(x))) for x in self._batches(images)]).mean(0)
        most = kl_Z.argsort(descending=True, stable=True)[:dimensions].tolist()
        z = np.zeros((len(most), steps, self.config["latent"]), dtype=np.float32)
        for row, dimension in enumerate(most):
            z[row, :, dimension] = np.linspace(-2.5, 2.5, steps)
        return self.images(z.reshape(-1, self.config["latent"]))

    def with_spread(self, images_NHWC: Tensor, seed: Seed) -> VAEModel:
        """The same, and the pixel variance of what it makes of its own training rows, z drawn from q(z | x).

        Samples from the prior should vary as much. If they do not, the prior is not where the posterior is, and samples are partly
        noise of the decoder: an underfitted model, which must not be taken for collapse.
        """
        rows = seed.generator().permutation(len(images_NHWC))[:SPREAD_ROWS]
        generator = torch.Generator(device=device()).manual_seed((seed / "noise").integer())
        decoded = []
        for x in self._batches(images_NHWC[torch.from_numpy(np.sort(rows)).to(device())].cpu().numpy()):
            with torch.inference_mode():
                decoded.append(self._terms(x, generator)["decoded"].clamp(0, 1))
        return replace(self, spread=float(torch.cat(decoded).double().var(0, correction=0).mean()))

    def save(self, folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps(self.config | {"spread": self.spread}, indent=1))
        torch.save({name: tensor.cpu().contiguous() for name, tensor in self.net.state_dict().items()}, folder / "weights.pt")

    @classmethod
    def load(cls, folder: Path) -> VAEModel:
        config = json.loads((folder / "config.json").read_text())
        spread = config.pop("spread")
        with torch.random.fork_rng(devices=[]):
            net = build(config)
        net.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
        return cls(net=net.to(device(), memory_format=torch.channels_last).eval(), config=config, spread=spread)

    @property
    def _shape(self) -> tuple[int, int, int]:
        return (self.config["size"], self.config["size"], self.config["image_channels"])

    def _batches(self, images: np.ndarray) -> Any:
        for first in range(0, len(images), BATCH):
            yield unit(bytes_tensor(images[first : first + BATCH]).to(device()))

    def _terms(self, x_BCHW: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        mean, log_variance = (part.float() for part in self.net.encode(x_BCHW))
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        decoded = self.net.decode(mean + noise * (0.5 * log_variance).exp()).float()
        squared_B = (decoded - x_BCHW).square().mean((1, 2, 3))
        return {"mean": mean, "decoded": decoded, "squared": squared_B, "kl_BZ": kl_to_prior(mean, log_variance)}

    def _loss(self, squared_B: Tensor, kl_B: Tensor, num_values: int) -> Tensor:
        weight = self.config["kl_weight"]
        if self.config["likelihood"] == "mse":
            return squared_B + weight * kl_B
        log_scale = self.log_scale
        nats_B = 0.5 * math.log(2 * math.pi) + log_scale + 0.5 * squared_B * (-2 * log_scale).exp()
        return nats_B + weight * kl_B / num_values

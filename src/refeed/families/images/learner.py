"""Variational auto-encoders: fitted to images by the paper's loss, or with a Gaussian likelihood of learnt variance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from refeed.core.errors import StudyError
from refeed.core.protocols import Data
from refeed.core.seeds import Seed
from refeed.families.images.worlds import ImageWorld

if TYPE_CHECKING:
    from refeed.families.images.model import VAEModel


@dataclass(frozen=True, kw_only=True)
class VAE:
    """A convolutional VAE, fitted from scratch (or from `start`) by Adam.

    Loss of `likelihood = "mse"`, the paper's: the mean over pixel values of (x - decoded)^2, plus `kl_weight` (0.00025) times
    KL(q(z|x) || p(z)) in nats, pixels in [0, 1]. As an evidence bound, that is a Gaussian with 2 s^2 = kl_weight x (number of pixel
    values): a strong prior. `"gaussian"`: nats a pixel value, 0.5 log(2 pi s^2) + (x - decoded)^2 / (2 s^2) + `kl_weight` (1, the
    beta of a beta-VAE) x KL / (number of pixel values), with one s learnt for all pixels.

    `channels`: of each convolution, each halving the sides. `latent`: dimensions of z. `head`: channels of the decoder at full
    resolution. `epochs`: passes over the training set, whatever its size, so that n times the rows take n times the steps; or
    `steps`, that many whatever the rows. `schedule`: "cycle" (up over a tenth of the steps, down a cosine) or "exponential" (times
    `decay` each epoch). `flip`: mirror half of the images, drawn anew each time. `precision`: "bfloat16" autocast, "float32", or
    "auto": the first where the hardware has it. `net`: `module:callable` of your own, called with (size, image_channels, latent),
    which returns a torch module with `encode(x) -> (mean, log_variance)` and `decode(z)`; x in [0, 1].
    """

    channels: tuple[int, ...] = (32, 64, 128)
    latent: int = 16
    head: int = 16
    tanh: bool = False
    likelihood: Literal["mse", "gaussian"] = "mse"
    kl_weight: float | None = None
    epochs: int = 11
    steps: int | None = None
    batch: int = 32
    learning_rate: float = 2e-3
    schedule: Literal["cycle", "exponential"] = "cycle"
    decay: float = 0.95
    flip: bool = False
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    net: str = ""
    provides: ClassVar[frozenset[str]] = frozenset({"loss", "reconstruction"})
    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        check_training(self)
        for name in ("latent", "head"):
            if getattr(self, name) < 1:
                raise StudyError(f"learner.{name} must be at least 1, not {getattr(self, name)}")
        if self.likelihood not in ("mse", "gaussian"):
            raise StudyError(f"learner.likelihood must be 'mse' or 'gaussian', not {self.likelihood!r}")
        if self.kl_weight is not None and not self.kl_weight >= 0:
            raise StudyError(f"learner.kl_weight must not be negative, not {self.kl_weight}")

    def check(self, *, source: Any, start: str) -> None:
        if not self.net and (size := getattr(source, "size", None)) is not None:
            halvable(size, len(self.channels))

    def fit(self, data: Data, *, world: ImageWorld, seed: Seed, start: VAEModel | None = None) -> VAEModel:
        from refeed.families.images import training
        from refeed.families.images.model import VAEModel, build

        if not self.net:
            halvable(world.size, len(self.channels))
        config = self._config(world)
        net = training.seeded(seed / "weights", lambda: build(config))
        if start is not None:
            net.load_state_dict(start.net.state_dict())
        model = VAEModel(net=net, config=config)
        images = training.train(net, model.training_loss, data, learner=self, seed=seed)
        return model.with_spread(images, seed / "spread")

    def load(self, folder: Path) -> VAEModel:
        from refeed.families.images.model import VAEModel

        return VAEModel.load(folder)

    def _config(self, world: ImageWorld) -> dict[str, Any]:
        default = {"mse": 0.00025, "gaussian": 1.0}[self.likelihood]
        return {
            "net": self.net,
            "size": world.size,
            "image_channels": world.channels,
            "channels": list(self.channels),
            "latent": self.latent,
            "head": self.head,
            "tanh": self.tanh,
            "likelihood": self.likelihood,
            "kl_weight": default if self.kl_weight is None else self.kl_weight,
        }


def paper(*, epochs: int = 100, steps: int | None = None, batch: int = 64, precision: Literal["auto", "float32"] = "auto") -> VAE:
    """The paper's VAE for 64 x 64 faces, 3.9 million parameters, as far as it is known: see docs/families/images.md."""
    return VAE(
        channels=(32, 64, 128, 256, 512),
        latent=128,
        head=32,
        tanh=True,
        epochs=epochs,
        steps=steps,
        batch=batch,
        learning_rate=0.005,
        schedule="exponential",
        decay=0.95,
        flip=True,
        precision=precision,
    )


def smoke(*, steps: int = 20) -> VAE:
    """The smallest that still is one: to see that a study runs, in seconds."""
    return VAE(channels=(16, 32), latent=8, head=8, steps=steps)


def check_training(learner: Any) -> None:
    """Refuse options of training that mean nothing."""
    for name in ("epochs", "batch", "steps"):
        if (value := getattr(learner, name)) is not None and value < 1:
            raise StudyError(f"learner.{name} must be at least 1, not {value}")
    if not 0 < learner.learning_rate < math.inf:
        raise StudyError(f"learner.learning_rate must be more than 0, not {learner.learning_rate}")
    if not 0 < learner.decay <= 1:
        raise StudyError(f"learner.decay must lie in (0, 1], not be {learner.decay}")
    for name, known in (("schedule", ("cycle", "exponential")), ("precision", ("auto", "bfloat16", "float32"))):
        if getattr(learner, name) not in known:
            raise StudyError(f"learner.{name} must be one of {', '.join(known)}, not {getattr(learner, name)!r}")
    if not learner.channels or min(learner.channels) < 1:
        raise StudyError(f"learner.channels must be positive numbers, one for each halving of the sides, not {learner.channels}")


def halvable(size: int, halvings: int) -> None:
    if size % (1 << halvings):
        raise StudyError(
            f"images of {size} x {size} cannot be halved {halvings} times, once for each of learner.channels",
            hint="Give fewer channels, or choose another source.size.",
        )

"""A second kind of model: flow matching, which learns the velocity that carries noise to images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from refeed.core.errors import StudyError
from refeed.core.protocols import Data
from refeed.core.seeds import Seed
from refeed.families.images.learner import check_training, halvable
from refeed.families.images.worlds import ImageWorld

if TYPE_CHECKING:
    from refeed.families.images.flow_model import FlowModel


@dataclass(frozen=True, kw_only=True)
class FlowMatching:
    """A small U-Net v(x_t, t), fitted to E |v(x_t, t) - (x - noise)|^2, x_t = (1 - t) noise + t x, t uniform, pixels in [-1, 1].

    Conditional flow matching along straight lines (Lipman et al., 2023; Liu et al., 2023). An image is sampled by solving
    dx/dt = v(x, t) from noise at t = 0 to t = 1 in `sampling_steps` steps of the midpoint rule, two evaluations each. There is no
    latent space and no reconstruction. The loss does not reach 0, since many images pass through each x_t. `channels`: of each
    level, each but the first halving the sides. The rest is as for the VAE.
    """

    channels: tuple[int, ...] = (32, 64, 96)
    sampling_steps: int = 12
    epochs: int = 30
    steps: int | None = None
    batch: int = 32
    learning_rate: float = 2e-3
    schedule: Literal["cycle", "exponential"] = "cycle"
    decay: float = 0.95
    flip: bool = False
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    provides: ClassVar[frozenset[str]] = frozenset({"loss"})
    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        check_training(self)
        if self.sampling_steps < 1:
            raise StudyError(f"learner.sampling_steps must be at least 1, not {self.sampling_steps}")
        if any(width % 8 for width in self.channels):
            raise StudyError(f"learner.channels of a flow must be multiples of 8, for its group norms, not {self.channels}")

    def check(self, *, source: Any, start: str) -> None:
        if (size := getattr(source, "size", None)) is not None:
            halvable(size, len(self.channels) - 1)

    def fit(self, data: Data, *, world: ImageWorld, seed: Seed, start: FlowModel | None = None) -> FlowModel:
        import torch

        from refeed.families.images import training
        from refeed.families.images.flow_model import FlowModel, UNet

        halvable(world.size, len(self.channels) - 1)
        config: dict[str, Any] = {
            "size": world.size,
            "image_channels": world.channels,
            "channels": list(self.channels),
            "sampling_steps": self.sampling_steps,
        }
        net = training.seeded(
            seed / "weights",
            lambda: UNet(image_channels=world.channels, channels=self.channels),
            layout=torch.contiguous_format,
        )
        if start is not None:
            net.load_state_dict(start.net.state_dict())
        model = FlowModel(net=net, config=config)
        training.train(net, model.training_loss, data, learner=self, seed=seed)
        return model

    def load(self, folder: Path) -> FlowModel:
        from refeed.families.images.flow_model import FlowModel

        return FlowModel.load(folder, json.loads((folder / "config.json").read_text()))

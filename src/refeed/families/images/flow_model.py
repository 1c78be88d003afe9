"""The velocity network of flow matching, and images from it by the midpoint rule. Pixels in [-1, 1] inside."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from refeed.core.seeds import Seed
from refeed.families.images.training import bytes_tensor, device, to_bytes, unit

BATCH = 250
WIDTH = 128  # of the embedding of time


class Block(nn.Module):
    """Two convolutions with group norm and SiLU; time shifts the channels between them; the input is added at the end."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(8, before), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1))
        self.time = nn.Linear(WIDTH, after)
        self.second = nn.Sequential(nn.GroupNorm(8, after), nn.SiLU(), nn.Conv2d(after, after, 3, padding=1))
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x_BCHW: Tensor, time_BW: Tensor) -> Tensor:
        hidden = self.first(x_BCHW) + self.time(time_BW)[:, :, None, None]
        return self.skip(x_BCHW) + self.second(hidden)


class UNet(nn.Module):
    """One block a level down, one up, with what was at that level on the way down laid beside.

    It works channels first, since group norms on a processor are many times slower channels last.
    """

    def __init__(self, *, image_channels: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(32, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU())
        self.enter = nn.Conv2d(image_channels, channels[0], 3, padding=1)
        self.down = nn.ModuleList(Block(a, a) for a in channels)
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(channels))
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 3, padding=1) for a, b in pairwise(channels))
        self.up = nn.ModuleList(Block(2 * a, a) for a in channels[:-1])
        self.leave = nn.Sequential(nn.GroupNorm(8, channels[0]), nn.SiLU(), nn.Conv2d(channels[0], image_channels, 3, padding=1))
        nn.init.zeros_(self.leave[2].weight)  # it starts at velocity zero
        nn.init.zeros_(self.leave[2].bias)

    def forward(self, x_BCHW: Tensor, t_B: Tensor) -> Tensor:
        angles = t_B[:, None] * torch.exp(torch.linspace(0, math.log(200), 16, device=t_B.device))
        time = self.embed(torch.cat([angles.sin(), angles.cos()], 1))
        x, beside = self.enter(x_BCHW.contiguous()), []
        for level, block in enumerate(self.down):
            x = block(x, time)
            if level < len(self.shrink):
                beside.append(x)
                x = self.shrink[level](x)
        for level in reversed(range(len(self.up))):
            x = self.grow[level](nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))
            x = self.up[level](torch.cat([x, beside[level]], 1), time)
        return self.leave(x)


@dataclass(frozen=True, eq=False, kw_only=True)
class FlowModel:
    """The flow from standard normal noise at t = 0 to images at t = 1."""

    net: Any
    config: dict[str, Any]

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return (self.config["image_channels"], self.config["size"], self.config["size"])

    def training_loss(self, x_BCHW: Tensor, weights_B: Tensor | None, generator: torch.Generator) -> Tensor:
        loss_B = self._loss(2 * x_BCHW - 1, generator)
        return loss_B.mean() if weights_B is None else (loss_B * weights_B).mean()

    def test_loss(self, images: np.ndarray, *, seed: Seed) -> dict[str, float]:
        """`loss`: the mean squared error of the velocity, at one time and one noise for each image, the same for every model."""
        generator = torch.Generator(device=device()).manual_seed(seed.integer())
        losses = []
        for first in range(0, len(images), BATCH):
            with torch.inference_mode():
                x = unit(bytes_tensor(images[first : first + BATCH]).to(device()))
                losses.append(self._loss(2 * x - 1, generator))
        return {"loss": float(torch.cat(losses).double().mean())}

    def images(self, noise: np.ndarray, *, seed: Seed | None = None) -> np.ndarray:
        """By the midpoint rule; `seed` is not used, as the flow adds no noise on its way."""
        made = [np.zeros((0, self.config["size"], self.config["size"], self.config["image_channels"]), dtype=np.uint8)]
        steps = self.config["sampling_steps"]
        for first in range(0, len(noise), BATCH):
            x = torch.from_numpy(noise[first : first + BATCH]).to(device())
            with torch.inference_mode():
                for step in range(steps):
                    time = torch.full((len(x),), step / steps, device=x.device)
                    middle = x + self.net(x, time) / (2 * steps)
                    x = x + self.net(middle, time + 1 / (2 * steps)) / steps
            made.append(to_bytes((x + 1) / 2))
        return np.concatenate(made)

    def save(self, folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps(self.config, indent=1))
        torch.save({name: tensor.cpu().contiguous() for name, tensor in self.net.state_dict().items()}, folder / "weights.pt")

    @classmethod
    def load(cls, folder: Path, config: dict[str, Any]) -> FlowModel:
        with torch.random.fork_rng(devices=[]):
            net = UNet(image_channels=config["image_channels"], channels=config["channels"])
        net.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
        return cls(net=net.to(device()).eval(), config=config)

    def _loss(self, x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
        t_B = torch.rand(len(x_BCHW), generator=generator, device=x_BCHW.device)
        noise = torch.randn(x_BCHW.shape, generator=generator, device=x_BCHW.device)
        t = t_B[:, None, None, None]
        velocity = self.net((1 - t) * noise + t * x_BCHW, t_B).float()
        return (velocity - (x_BCHW - noise)).square().mean((1, 2, 3))

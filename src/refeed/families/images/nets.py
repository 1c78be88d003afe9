"""The convolutional variational auto-encoder of the paper's face experiment, in plain PyTorch.

Unusual: images enter in [0, 1], not [-1, 1]; the output is linear (clamped only when samples are made) unless `tanh`, which the
recipe it follows has (AntixK/PyTorch-VAE's layers: convolutions of stride 2, batch norm, leaky ReLU). Shapes: x_BCHW, z_BZ.

For speed on a processor, without changing what can be represented: convolutions before a batch norm have no bias, which it would
subtract again, and whose gradient took a third of the backward pass in bfloat16; images become vectors in the order in which they
lie in memory, channels last, so that neither they nor their gradients are laid out anew; leaky ReLUs work in place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class ConvVAE(nn.Module):
    """q(z | x) = N(mean(x), diag exp(log_variance(x))) and the mean of p(x | z), both by convolutions.

    Each of `channels` halves the sides; the decoder mirrors the encoder and ends in `head` channels at full resolution.
    `log_scale`: the logarithm of the observation's standard deviation, used by the Gaussian likelihood alone.
    """

    def __init__(
        self, *, size: int, image_channels: int, channels: Sequence[int], latent: int, head: int, tanh: bool = False
    ) -> None:
        super().__init__()
        self.latent = latent
        self._small_HWC = (size >> len(channels), size >> len(channels), channels[-1])
        cells = math.prod(self._small_HWC)
        widths = [image_channels, *channels]
        self.encoder = nn.Sequential(*(_block(nn.Conv2d, a, b, stride=2) for a, b in pairwise(widths)))
        self.mean, self.log_variance = nn.Linear(cells, latent), nn.Linear(cells, latent)
        self.grow = nn.Linear(latent, cells)
        back = [*reversed(channels), head]
        self.decoder = nn.Sequential(
            *(_block(nn.ConvTranspose2d, a, b, stride=2, output_padding=1) for a, b in pairwise(back)),
            nn.Conv2d(head, image_channels, 3, padding=1),
            nn.Tanh() if tanh else nn.Identity(),
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(0.1)))

    def encode(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x), each (B, latent)."""
        features = self.encoder(x_BCHW).permute(0, 2, 3, 1).flatten(1)
        return self.mean(features), self.log_variance(features)

    def decode(self, z_BZ: Tensor) -> Tensor:
        """The mean of p(x | z), (B, C, H, W)."""
        small_BHWC = self.grow(z_BZ).unflatten(1, self._small_HWC)
        return self.decoder(small_BHWC.permute(0, 3, 1, 2))


def _block(convolution: type[nn.Module], before: int, after: int, **options: int) -> nn.Sequential:
    layer = convolution(before, after, 3, padding=1, bias=False, **options)
    return nn.Sequential(layer, nn.BatchNorm2d(after), nn.LeakyReLU(inplace=True))


def kl_to_prior(mean_BZ: Tensor, log_variance_BZ: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, 1)) in nats, one a dimension: (B, latent)."""
    return -0.5 * (1 + log_variance_BZ - mean_BZ.square() - log_variance_BZ.exp())

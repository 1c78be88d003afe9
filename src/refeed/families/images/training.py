"""What every learner of images shares: rows resident as bytes, the learning rate, and the loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refeed.core import progress
from refeed.core.batches import batches
from refeed.core.errors import Stopped
from refeed.core.protocols import Data
from refeed.core.seeds import Seed
from refeed.families.images.worlds import images_of


def device() -> torch.device:
    """A CUDA device where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(precision: str) -> AbstractContextManager[Any]:
    """bfloat16 for convolutions and products, or nothing. "auto" takes it where the hardware computes in it.

    That is decided by what the processor says, never by timing, so that equal machines give equal bits.
    """
    if precision == "float32" or (precision == "auto" and not _has_bfloat16()):
        return nullcontext()
    return torch.autocast(device().type, dtype=torch.bfloat16)


def _has_bfloat16() -> bool:
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return torch.backends.mkldnn.is_available() and torch.cpu._is_avx512_bf16_supported()


def seeded(seed: Seed, make: Callable[[], torch.nn.Module], *, layout: torch.memory_format = torch.channels_last) -> Any:
    """The network that `make` builds with random weights from `seed` alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed.integer())
        return make().to(device=device(), memory_format=layout)


def keep_freed_memory() -> None:
    """Let the C library keep up to 64 MB that are freed, rather than hand them back and fetch them, zeroed, at every step.

    glibc raises its threshold to twice the largest block of at most 32 MB that was mapped and freed; others may ignore it. At 32
    pixels that saves up to a tenth of a step, and no result depends on it.
    """
    torch.empty((32 << 20) - (1 << 16), dtype=torch.uint8)


def resident(data: Data) -> tuple[Tensor, Tensor | None]:
    """The training images as one byte tensor (rows, H, W, C) on the device, and their weights, of mean 1; None if all are equal.

    It is filled part by part, so that the set is never in memory twice.
    """
    weights = np.concatenate([np.full(part.num_rows, part.weight, dtype=np.float32) for part in data.pool])
    images, filled = None, 0
    for rows, _ in data:
        part = bytes_tensor(images_of(rows))
        if images is None:
            images = torch.empty((data.num_rows, *part.shape[1:]), dtype=torch.uint8, device=device())
        images[filled : filled + len(part)] = part.to(device())
        filled += len(part)
    assert images is not None
    return images, None if np.ptp(weights) == 0 else torch.from_numpy(weights / weights.mean()).to(device())


def bytes_tensor(images: np.ndarray) -> Tensor:
    """An array of images as a byte tensor, without a copy where the array may be written to."""
    return torch.from_numpy(images if images.flags.writeable else images.copy())


def unit(images_BHWC: Tensor) -> Tensor:
    """Bytes to numbers in [0, 1], channels first, laid out channels last: (B, C, H, W) float32."""
    return images_BHWC.permute(0, 3, 1, 2).float().div_(255)


def to_bytes(images_BCHW: Tensor) -> np.ndarray:
    """Clamped to [0, 1] and rounded to bytes, on a fixed scale: (B, H, W, C) uint8. Never scaled by the images' own range."""
    scaled = images_BCHW.float().clamp(0, 1).mul(255).round_().to(torch.uint8)
    return np.ascontiguousarray(scaled.permute(0, 2, 3, 1).cpu().numpy())


def learning_rates(name: str, peak: float, *, num_steps: int, steps_per_epoch: int, decay: float) -> Iterator[float]:
    """The rate of each step. "cycle": linear to `peak` over a tenth, then a cosine to zero. "exponential": peak x decay^epoch."""
    rising = max(1, num_steps // 10)
    for step in range(num_steps):
        if name == "exponential":
            yield peak * decay ** (step // steps_per_epoch)
        elif step < rising:
            yield peak * (step + 1) / rising
        else:
            yield peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, num_steps - rising)))


def train(
    net: torch.nn.Module,
    loss_of: Callable[[Tensor, Tensor | None, torch.Generator], Tensor],
    data: Data,
    *,
    learner: Any,
    seed: Seed,
) -> Tensor:
    """Minimise `loss_of(x, weights, generator)` by Adam over the learner's epochs or steps; returns the resident images.

    `x` is a batch (B, C, H, W) in [0, 1]. The loss is looked at every 32 steps, so that a GPU need not wait at each.
    """
    keep_freed_memory()
    images, weights = resident(data)
    per_epoch = -(-len(images) // learner.batch)
    num_steps = learner.steps if learner.steps is not None else learner.epochs * per_epoch
    optimizer = torch.optim.Adam(net.parameters(), lr=learner.learning_rate, fused=True)
    noise = torch.Generator(device=device()).manual_seed((seed / "noise").integer())
    flips = (seed / "flips").generator() if learner.flip else None
    rates = learning_rates(
        learner.schedule, learner.learning_rate, num_steps=num_steps, steps_per_epoch=per_epoch, decay=learner.decay
    )
    net.train()
    for step, (chosen, rate) in enumerate(
        zip(batches(len(images), batch=learner.batch, num_steps=num_steps, seed=seed / "order"), rates, strict=True), start=1
    ):
        for group in optimizer.param_groups:
            group["lr"] = rate
        index = torch.from_numpy(chosen).to(device())
        x = unit(images[index])
        if flips is not None:
            flipped = torch.from_numpy(flips.random(len(chosen)) < 0.5).to(device())
            x = torch.where(flipped[:, None, None, None], x.flip(3), x)
        with autocast(learner.precision):
            loss = loss_of(x, None if weights is None else weights[index], noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step % 32 == 0 or step == num_steps) and not math.isfinite(value := loss.item()):
            raise Stopped("diverged", f"the training loss became {value} by step {step} of {num_steps}")
        progress.tick(step, num_steps, "steps")
    net.eval()
    if not all(torch.isfinite(parameter).all() for parameter in net.parameters()):
        raise Stopped("non-finite", "the fitted weights hold NaN or infinite values")
    return images

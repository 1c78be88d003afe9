"""How one token is drawn from logits: temperature, truncation, and a random number that belongs to (seed, story, position)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# of the hash behind `uniform`: two strides and two factors, all uint64
STORY, POSITION, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
Finished = tuple[np.ndarray, np.ndarray, np.ndarray]  # stories, their lengths, and their tokens end to end


@dataclass(frozen=True, kw_only=True)
class Draws:
    """x ~ softmax(logits / temperature), truncated; at temperature 0 the most likely token, the lowest of equals.

    In transformers' order: temperature, then `top_k` (the k most likely; 0 is off), then `top_p` (of those, the fewest most likely
    that together have this probability; 1 is off), then `min_p` (at least this share of the probability of the most likely; 0 is
    off). Tokens of equal probability stay or go together.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Job:
    """Which stories to draw, and how: what an engine is given beside the network.

    Story i has the random numbers of story first + i. `prompts`, (stories, p), holds tokens that are given, -1 where a position is
    free. `slots`: stories in flight at most. A story ends with token `end`, or when it has `limit` tokens.
    """

    draws: Draws
    key: int
    stories: int
    limit: int
    end: int
    slots: int
    first: int = 0
    dtype: str = "float32"
    prompts: np.ndarray | None = None


def choose(logits: Any, u: Any, draws: Draws) -> Any:
    """For every row of `logits`, the token at which the cumulative distribution passes `u`, in float64 on the logits' device.

    Any token where logits are not finite. No value is asked for, so that a GPU need not be waited for.
    """
    import torch

    if draws.temperature == 0:
        # argmax promises nothing among equals
        return (logits == logits.amax(dim=-1, keepdim=True)).int().argmax(dim=-1)
    scaled = logits.double() / draws.temperature
    weights = (scaled - scaled.amax(dim=-1, keepdim=True)).exp_()
    if draws.top_k > 0 or draws.top_p < 1 or draws.min_p > 0:
        weights.masked_fill_(weights < threshold(weights, draws), 0.0)
    cumulative = weights.cumsum(dim=-1)
    total = cumulative[:, -1:].contiguous()
    token = torch.searchsorted(cumulative, u[:, None] * total, right=True)
    last = torch.searchsorted(cumulative, total)  # u * total may round up to the total: then the token that completes it
    return torch.minimum(token, last).clamp(max=weights.shape[1] - 1)[:, 0]


def threshold(weights: Any, draws: Draws) -> Any:
    """The least weight that survives truncation, for every row: (rows, 1). The largest weight of a row is 1."""
    import torch

    least = torch.full_like(weights[:, :1], draws.min_p)
    if 0 < draws.top_k < weights.shape[1]:
        rank = weights.topk(draws.top_k, dim=-1).values[:, -1:]
        least = torch.maximum(least, rank)
        weights = weights.masked_fill(weights < rank, 0.0)
    if draws.top_p < 1:
        ordered = weights.sort(dim=-1, descending=True).values
        cumulative = ordered.cumsum(dim=-1)
        place = (cumulative < draws.top_p * cumulative[:, -1:]).sum(dim=-1, keepdim=True)
        least = torch.maximum(least, ordered.gather(1, place.clamp(max=weights.shape[1] - 1)))
    return least


def uniform(key: int, story: np.ndarray, position: int | np.ndarray) -> np.ndarray:
    """Numbers in [0, 1), one for each (key, story, position), of 53 bits, by the splitmix64 finaliser (Steele et al., 2014)."""
    state = np.uint64(key) ^ _mixed(story.astype(np.uint64) * np.uint64(STORY) + np.uint64(1))
    state = _mixed(state + np.array(position, dtype=np.uint64) * np.uint64(POSITION))
    return (_mixed(state) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(FIRST)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(SECOND)
    return z ^ (z >> np.uint64(31))


def uniform_tensor(key: int, story: Any, position: Any) -> Any:
    """The same numbers for tensors of int64, on their device."""
    state = _mixed_tensor(story * _signed(STORY) + 1) ^ _signed(key)
    state = _mixed_tensor(state + position * _signed(POSITION))
    return _shifted(_mixed_tensor(state), 11).double() * 2.0**-53


def _mixed_tensor(z: Any) -> Any:
    z = (z ^ _shifted(z, 30)) * _signed(FIRST)
    z = (z ^ _shifted(z, 27)) * _signed(SECOND)
    return z ^ _shifted(z, 31)


def _shifted(z: Any, bits: int) -> Any:
    """To the right, with zeros coming in, where int64 would repeat its sign."""
    return (z >> bits) & ((1 << 64 - bits) - 1)


def _signed(number: int) -> int:
    """The int64 that has the bits of this uint64: sums, products and exclusive ors have the same bits in both."""
    return number - (number >> 63 << 64)

"""Stories laid out as matrices: padded by length for scoring, or packed end to end into blocks for training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from refeed.core.rows import Ragged
from refeed.core.seeds import Seed


def predecessors(stories: Ragged, end: int) -> np.ndarray:
    """The token before each token, `end` before the first of a story: what a network is given to predict it. int64."""
    shifted = np.empty(len(stories.values), dtype=np.int64)
    shifted[1:] = stories.values[:-1]
    shifted[stories.offsets[:-1][stories.lengths > 0]] = end
    return shifted


def padded(stories: Ragged, *, fill: int) -> np.ndarray:
    """Stories as rows of an int64 matrix, `fill` after their ends: (stories, longest)."""
    lengths = stories.lengths
    matrix = np.full((len(stories), int(lengths.max(initial=0))), fill, dtype=np.int64)
    matrix[np.arange(matrix.shape[1]) < lengths[:, None]] = stories.values
    return matrix


def batches_by_length(lengths: np.ndarray, *, max_tokens: int) -> list[np.ndarray]:
    """Positions in batches of similar length, each of at most `max_tokens` cells once padded (but never empty)."""
    order = np.argsort(lengths, kind="stable")
    batches, first = [], 0
    for last in range(len(order)):
        if lengths[order[last]] * (last + 1 - first) > max_tokens and last > first:
            batches.append(order[first:last])
            first = last
    return [*batches, order[first:]] if len(order) else []


def pack(lengths: Sequence[int], *, block: int, num_open: int = 32) -> tuple[np.ndarray, np.ndarray, int]:
    """First fit: which block each story goes to and where in it, without cutting any; and how many blocks there are.

    Only the last `num_open` blocks are tried, so that stories stay near their place in the order given.
    """
    to_block, at = np.empty(len(lengths), dtype=np.int64), np.empty(len(lengths), dtype=np.int64)
    opened: list[list[int]] = []  # [block, cells used]
    num_blocks = 0
    for story, length in enumerate(lengths):
        for entry in opened:
            if entry[1] + length <= block:
                break
        else:
            entry = [num_blocks, 0]
            num_blocks += 1
            opened.append(entry)
            if len(opened) > num_open:
                opened.pop(max(range(num_open), key=lambda index: opened[index][1]))
        to_block[story], at[story] = entry
        entry[1] += length
    return to_block, at, num_blocks


@dataclass(frozen=True, eq=False)
class Batch:
    """Blocks of packed stories, one a row; cells beyond a block's stories have target -100 and weight 0."""

    inputs: np.ndarray  # (B, T) int64
    targets: np.ndarray  # (B, T) int64
    positions: np.ndarray  # (B, T) int64, from 0 in each story
    story: np.ndarray  # (B, T) int64: which story of the block, from 1; 0 beyond them
    weights: np.ndarray  # (B, T) float32
    num_tokens: int

    def mask(self) -> np.ndarray:
        """Which cell may attend to which: those before it in its own story, and itself. (B, 1, T, T) bool."""
        width = self.story.shape[1]
        return (self.story[:, None, :, None] == self.story[:, None, None, :]) & np.tri(width, dtype=bool)


class Packed:
    """A training set of stories as an endless or finite stream of packed batches."""

    def __init__(self, stories: Ragged, weights: np.ndarray, *, context: int, end: int) -> None:
        self._stories, self._block = stories, context
        self._inputs = predecessors(stories, end)
        num_pieces = -(-stories.lengths // context)  # a story longer than the context is cut
        of_story = np.repeat(np.arange(len(stories)), num_pieces)
        number = np.arange(len(of_story)) - np.repeat(np.cumsum(num_pieces) - num_pieces, num_pieces)
        self._starts = stories.offsets[of_story] + number * context
        self._lengths = np.minimum(stories.lengths[of_story] - number * context, context)
        tokens = self._lengths.sum()
        self._weights = weights[of_story] * (tokens / (weights[of_story] * self._lengths).sum())  # mean 1 over tokens

    def batches(self, epochs: int | None, steps: int | None, batch_tokens: int, seed: Seed) -> Iterator[tuple[Batch, int, int]]:
        """(batch, step, number of steps): whole epochs, or as many steps of them as asked for."""
        per_step = max(1, batch_tokens // self._block)
        plans = [self._plan(seed / epoch) for epoch in range(epochs)] if epochs is not None else []
        num_steps = steps if steps is not None else sum(-(-plan.num_blocks // per_step) for plan in plans)
        step = 0
        for epoch in count():
            plan = plans[epoch] if epochs is not None else self._plan(seed / epoch)
            for first in range(0, plan.num_blocks, per_step):
                if step == num_steps:
                    return
                yield self._batch(plan, first, min(first + per_step, plan.num_blocks)), step, num_steps
                step += 1
            if step == num_steps:
                return

    def num_steps(self, epochs: int, batch_tokens: int, seed: Seed) -> int:
        """How many steps so many epochs take."""
        per_step = max(1, batch_tokens // self._block)
        return sum(-(-self._plan(seed / epoch).num_blocks // per_step) for epoch in range(epochs))

    def _plan(self, seed: Seed) -> _Plan:
        order = seed.generator().permutation(len(self._lengths))
        to_block, at, num_blocks = pack(self._lengths[order].tolist(), block=self._block)
        by_block = np.argsort(to_block, kind="stable")
        return _Plan(order[by_block], to_block[by_block], at[by_block], num_blocks)

    def _batch(self, plan: _Plan, first: int, last: int) -> Batch:
        low, high = np.searchsorted(plan.block, [first, last])
        piece, row, at = plan.piece[low:high], plan.block[low:high] - first, plan.at[low:high]
        lengths = self._lengths[piece]
        shape = (last - first, int((at + lengths).max()))
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        cell = np.repeat(row * shape[1] + at, lengths) + within
        source = np.repeat(self._starts[piece], lengths) + within

        def filled(values: np.ndarray, empty: int, dtype: Any) -> np.ndarray:
            flat: np.ndarray = np.full(shape[0] * shape[1], empty, dtype=dtype)
            flat[cell] = values
            return flat.reshape(shape)

        return Batch(
            inputs=filled(self._inputs[source], 0, np.int64),
            targets=filled(self._stories.values[source], -100, np.int64),
            positions=filled(within, 0, np.int64),
            story=filled(np.repeat(1 + np.arange(len(piece)), lengths), 0, np.int64),
            weights=filled(np.repeat(self._weights[piece], lengths), 0, np.float32),
            num_tokens=int(lengths.sum()),
        )


@dataclass(frozen=True, eq=False)
class _Plan:
    """Where one epoch puts each piece: sorted by block."""

    piece: np.ndarray
    block: np.ndarray
    at: np.ndarray
    num_blocks: int

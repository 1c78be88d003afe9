"""Stories laid out as matrices: padded by length for scoring, or end to end, in groups of nearly equal length, for training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from refeed.core.rows import Ragged
from refeed.core.seeds import Seed

WASTE = 48  # cells of padding that cost about as much as one more group


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


@dataclass(frozen=True, eq=False)
class Batch:
    """Stories end to end, in groups: (first cell, stories, cells of each). Cells after a story's end have weight 0."""

    inputs: np.ndarray  # (N,) int64
    targets: np.ndarray  # (N,) int64
    weights: np.ndarray  # (N,) float32
    groups: tuple[tuple[int, int, int], ...]
    num_tokens: int


class TrainingText:
    """A training set of stories as a stream of steps, each some stories; the stories themselves stay where they are.

    `parts`: stories and the weight of each. A story longer than `context` is cut into pieces. It takes about 30 bytes a story.
    """

    def __init__(self, parts: Sequence[tuple[Ragged, float]], *, context: int, end: int) -> None:
        self._end, self._parts = end, [stories for stories, _ in parts]
        starts, lengths, weights, cut = [], [], [], []
        for stories, part_weight in parts:
            num_pieces = -(-stories.lengths // context)
            story = np.repeat(np.arange(len(stories)), num_pieces)
            number = np.arange(len(story)) - np.repeat(np.cumsum(num_pieces) - num_pieces, num_pieces)
            starts.append(stories.offsets[story] + number * context)
            lengths.append(np.minimum(stories.lengths[story] - number * context, context).astype(np.int32))
            weights.append(np.full(len(story), part_weight, dtype=np.float32))
            cut.append(number > 0)
        self._first = np.cumsum([0, *map(len, starts)])  # piece number at which each part begins
        self._starts, self._lengths = np.concatenate(starts), np.concatenate(lengths)
        self._cut = np.concatenate(cut)  # whether a piece goes on from the one before
        self.num_tokens = int(self._lengths.sum(dtype=np.int64))
        weight = np.concatenate(weights)
        self._weights = weight * np.float32(self.num_tokens / (weight.astype(np.float64) @ self._lengths))  # mean 1 over tokens

    def steps_per_epoch(self, *, batch_tokens: int, batch_stories: int | None) -> int:
        if batch_stories is not None:
            return -(-len(self._starts) // batch_stories)
        return min(len(self._starts), max(1, round(self.num_tokens / batch_tokens)))

    def steps(
        self, num_steps: int, *, batch_tokens: int, batch_stories: int | None, seed: Seed, first: int = 0
    ) -> Iterator[np.ndarray]:
        """The pieces of steps `first`, `first` + 1, ... below `num_steps`. Every epoch has its own order, every piece once.

        A step is `batch_stories` pieces, or as near `batch_tokens` tokens as whole pieces come, all steps of an epoch alike.
        """
        per_epoch = self.steps_per_epoch(batch_tokens=batch_tokens, batch_stories=batch_stories)
        for epoch in range(first // per_epoch, -(-num_steps // per_epoch)):
            order = (seed / epoch).generator().permutation(len(self._starts))
            if batch_stories is not None:
                bounds = np.minimum(np.arange(per_epoch + 1) * batch_stories, len(order))
            else:
                bounds = self._bounds(order, per_epoch)
            for step in range(max(first - epoch * per_epoch, 0), min(per_epoch, num_steps - epoch * per_epoch)):
                yield order[bounds[step] : bounds[step + 1]]

    def _bounds(self, order: np.ndarray, num_steps: int) -> np.ndarray:
        """Where each step begins: a piece belongs to the step that its middle token falls into; no step is empty."""
        lengths = self._lengths[order]
        middle = np.cumsum(lengths, dtype=np.int64) - lengths // 2
        bounds = np.searchsorted(middle, np.arange(num_steps + 1) * (self.num_tokens / num_steps), side="right")
        bounds[0], bounds[-1] = 0, len(order)
        number = np.arange(num_steps + 1)
        return np.minimum(np.maximum.accumulate(bounds - number), len(order) - num_steps) + number

    def batches(self, pieces: np.ndarray, *, max_cells: int) -> list[Batch]:
        """The pieces of a step, the longest first, in batches of about `max_cells` tokens: at most a piece more."""
        return [self._batch(part) for part in self._parts_of(self._longest_first(pieces), max_cells)]

    def shares(self, pieces: np.ndarray, number: int) -> list[np.ndarray]:
        """The pieces of a step dealt out to `number` processes, the longest first, so that all have about as many tokens."""
        return [self._longest_first(pieces)[first::number] for first in range(number)]

    def num_batches(self, pieces: np.ndarray, *, max_cells: int) -> int:
        """How many `batches` of these pieces there are."""
        return len(self._parts_of(self._longest_first(pieces), max_cells)) if len(pieces) else 0

    def num_tokens_of(self, pieces: np.ndarray) -> int:
        return int(self._lengths[pieces].sum(dtype=np.int64))

    def _longest_first(self, pieces: np.ndarray) -> np.ndarray:
        return pieces[np.argsort(-self._lengths[pieces], kind="stable")]

    def _parts_of(self, pieces: np.ndarray, max_cells: int) -> list[np.ndarray]:
        before = np.cumsum(self._lengths[pieces], dtype=np.int64) - self._lengths[pieces]
        return np.split(pieces, np.flatnonzero(np.diff(before // max_cells)) + 1)

    def _batch(self, pieces: np.ndarray) -> Batch:
        groups = by_length(self._lengths[pieces])
        num_cells = groups[-1][0] + groups[-1][1] * groups[-1][2]
        inputs, targets = np.full(num_cells, self._end), np.full(num_cells, self._end)
        weights = np.zeros(num_cells, dtype=np.float32)
        cells = np.concatenate([first + np.arange(number) * length for first, number, length in groups])
        for piece, cell, part in zip(pieces, cells, np.searchsorted(self._first, pieces, side="right") - 1, strict=True):
            start, length = self._starts[piece], self._lengths[piece]
            tokens = self._parts[part].values[start : start + length]
            targets[cell : cell + length] = tokens
            inputs[cell + 1 : cell + length] = tokens[:-1]
            weights[cell : cell + length] = self._weights[piece]
            if self._cut[piece]:
                inputs[cell] = self._parts[part].values[start - 1]
        return Batch(inputs, targets, weights, groups, int(self._lengths[pieces].sum()))


def by_length(lengths: np.ndarray) -> tuple[tuple[int, int, int], ...]:
    """Groups (first cell, stories, cells of each) of falling `lengths`: a new one where padding would pass `WASTE` cells."""
    groups, first, number, waste = [], 0, 0, 0
    longest = int(lengths[0])
    for length in lengths.tolist():
        if waste + longest - length > WASTE:
            groups.append((first, number, longest))
            first, number, waste, longest = first + number * longest, 0, 0, length
        number, waste = number + 1, waste + longest - length
    return (*groups, (first, number, longest))

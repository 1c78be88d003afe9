"""The PyTorch engine, on any device: waves of stories that start together, so that all share one position.

The state of a wave lies on the device, and a step changes it in place without asking for a value: its shapes follow from the number
of rows and the span of the cache that is read. `Shapes` says which there may be. On a processor the cache is read up to the
position and ended rows are dropped at once when a quarter is done. On a GPU there are few shapes, each step is recorded once and
replayed (`graphs`), and the host looks at the wave now and then. When a wave is over the next one starts.

Bits: the products of PyTorch may sum in another order for another number of rows, so a logit may differ in its last bits between
numbers of slots and threads; a draw changes when that moves a boundary across its random number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from refeed.core.errors import Stopped
from refeed.families.language.sampling.decoders import Decoder, decoder_of
from refeed.families.language.sampling.draws import Finished, Job, choose, uniform_tensor
from refeed.families.language.sampling.graphs import Recorded
from refeed.families.language.sampling.network import read

LIVE = 0.75  # a wave is compacted when fewer of its rows are live


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Which shapes the steps of a wave may have, and how often the host looks at it.

    The cache is read up to a multiple of `span`. Numbers of rows are powers of two and three quarters of these, from `fewest` on;
    any number if it is 0. The host looks every so many steps (`look`) for rows that ended or are not finite.
    """

    span: int = 1
    fewest: int = 0
    look: int = 1

    def rows(self, live: int) -> int:
        """The least allowed number of rows that holds `live`."""
        if not self.fewest:
            return live
        power = 1 << (live - 1).bit_length()
        return max(self.fewest, power if live > 3 * power // 4 else 3 * power // 4)

    def spanned(self, position: int, limit: int) -> int:
        """How far the cache is read at `position`."""
        return min(limit, (position // self.span + 1) * self.span)


ANY = Shapes()
FEW = Shapes(span=64, fewest=64, look=16)


def stories(net: Any, job: Job, *, device: str) -> Iterator[Finished]:
    """Every story of the job, a wave at a time."""
    import torch

    with torch.inference_mode():
        network = read(net)
        recorded = device == "cuda" and network is not None
        shapes = FEW if recorded else ANY
        wave = Wave(decoder_of(net, network, job, device, masked=shapes.span > 1), job, shapes, device)
        step = Recorded(wave.step) if recorded else wave.step
        for first in range(0, job.stories, job.slots):
            yield wave.run(first, step)


def logits_of(net: Any, job: Job, tokens_BT: np.ndarray, *, device: str = "cpu", shapes: Shapes = ANY) -> np.ndarray:
    """Logits before each of the given tokens, (stories, tokens, vocabulary): how the engine is held against others."""
    import torch

    with torch.inference_mode():
        decoder = decoder_of(net, read(net), job, device, masked=shapes.span > 1)
        decoder.start()
        shifted = np.concatenate([np.full((len(tokens_BT), 1), job.end), tokens_BT[:, :-1]], axis=1).astype(np.int64)
        position, tokens = torch.zeros(1, dtype=torch.int64, device=device), torch.from_numpy(shifted).to(device)
        steps = [decoder.step(tokens[:, t], position + t, shapes.spanned(t, job.limit)).cpu() for t in range(shifted.shape[1])]
        return np.asarray(torch.stack(steps, dim=1).numpy())


class Wave:
    """A wave of stories: rows of the cache with their last tokens, whether they go on, and all that was written so far."""

    def __init__(self, decoder: Decoder, job: Job, shapes: Shapes, device: str) -> None:
        import torch

        self._decoder, self._job, self._shapes = decoder, job, shapes
        self._slots = min(job.slots, job.stories)

        def zeros(*shape: int, dtype: Any = torch.int64) -> Any:
            return torch.zeros(shape, dtype=dtype, device=device)

        self._position, self._first = zeros(1), zeros(1)
        self._number, self._token = zeros(self._slots), zeros(self._slots)  # in a wave a story keeps its number, not its row
        self._going, self._bad = (zeros(self._slots, dtype=torch.bool) for _ in range(2))
        self._written = zeros(self._slots * job.limit)  # tokens by number, then position; -1 where there is none yet

    def run(self, first: int, step: Callable[[int, int], None]) -> Finished:
        """The stories from `first` on, as many as there are slots; `step` is this wave's."""
        job, shapes = self._job, self._shapes
        stories = np.arange(first, min(first + self._slots, job.stories))
        self._start(stories)
        rows = min(shapes.rows(len(stories)), self._slots)
        for position in range(job.limit):
            step(rows, shapes.spanned(position, job.limit))
            if (position + 1) % shapes.look and position + 1 < job.limit:
                continue
            going = self._look(rows)
            live = int(going.sum())
            if not live:
                break
            if live < LIVE * rows and shapes.rows(live) < rows:
                rows = shapes.rows(live)
                self._keep(np.argsort(~going, kind="stable")[:rows], position + 1)
        written = self._written.view(self._slots, job.limit)[: len(stories)].cpu().numpy()
        ended = written == job.end
        length = np.where(ended.any(axis=1), ended.argmax(axis=1) + 1, job.limit).astype(np.int32)
        return job.first + stories, length, written[np.arange(job.limit) < length[:, None]].astype(np.int32)

    def step(self, rows: int, span: int) -> None:
        """One token more for each of the first `rows` rows, all of it on the device."""
        import torch

        job, position = self._job, self._position
        token, number, going, bad = (part[:rows] for part in (self._token, self._number, self._going, self._bad))
        logits = self._decoder.step(token, position, span)
        bad |= going & ~torch.isfinite(logits.amax(dim=-1))
        drawn = choose(logits, uniform_tensor(job.key, self._first + number, position), job.draws)
        place = number * job.limit + position
        given = self._written[place]
        token.copy_(torch.where(given < 0, drawn, given).masked_fill(~going, job.end))
        self._written.index_copy_(0, place, token)
        going &= token != job.end
        position += 1

    def _start(self, stories: np.ndarray) -> None:
        import torch

        job, device = self._job, self._token.device
        self._decoder.start()
        self._position.zero_()
        self._first.fill_(job.first + int(stories[0]))
        torch.arange(self._slots, out=self._number)
        self._token.fill_(job.end)
        self._going.copy_(self._number < len(stories))
        self._bad.zero_()
        self._written.fill_(-1)
        if job.prompts is not None:
            given = torch.from_numpy(job.prompts[stories].astype(np.int64)).to(device)
            self._written.view(self._slots, job.limit)[: len(stories), : given.shape[1]] = given

    def _look(self, rows: int) -> np.ndarray:
        """Which of the first rows go on."""
        import torch

        going, bad = torch.stack([self._going[:rows], self._bad[:rows]]).cpu().numpy()
        if bad.any():
            raise Stopped("non-finite", f"{bad.sum()} stories have logits that are NaN or infinite")
        return np.asarray(going)

    def _keep(self, rows: np.ndarray, position: int) -> None:
        import torch

        index = torch.from_numpy(rows).to(self._token.device)
        for part in (self._token, self._number, self._going, self._bad):
            part[: len(index)] = part[index]
        self._decoder.keep(index, position)

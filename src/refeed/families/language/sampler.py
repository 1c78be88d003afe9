"""Ancestral sampling: token after token from the model's own distribution, up to the end-of-text token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from refeed.core import progress
from refeed.core.errors import Stopped, StudyError
from refeed.core.rows import Ragged, Rows
from refeed.core.seeds import Seed
from refeed.families.language.model import LanguageModel
from refeed.families.language.source import LanguageWorld


@dataclass(frozen=True, kw_only=True)
class Ancestral:
    """x_t ~ softmax(logits / temperature), from the end token on, until the end token or `max_tokens` (the model's context).

    No truncation of the distribution. Randomness is keyed by (seed, story, position): a story's draws do not depend on how many
    others are sampled or beside which. Its logits may differ in the last bit with the shape of the batch, as matrix products do; a
    draw changes when that moves a boundary across it, about once in a million tokens. With equal arguments every bit is equal.
    A story that reached the limit has no end token, as a real one always has.
    """

    temperature: float = 1.0
    max_tokens: int | None = None
    batch: int = 512
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.temperature == 0:
            raise StudyError(
                "sampler.temperature must be above 0: greedy decoding is not built yet, and would give one story over and over"
            )
        if not 0 < self.temperature < float("inf"):
            raise StudyError(f"sampler.temperature must be a positive number, not {self.temperature}")
        if self.batch < 1 or (self.max_tokens is not None and self.max_tokens < 1):
            raise StudyError(f"sampler.batch and sampler.max_tokens must be at least 1, not {self.batch} and {self.max_tokens}")

    def sample(self, model: LanguageModel, num_rows: int, *, world: LanguageWorld, seed: Seed) -> Rows:
        limit = model.context if self.max_tokens is None else self.max_tokens
        if limit > model.context:
            raise StudyError(f"sampler.max_tokens = {limit} is more than learner.context = {model.context}")
        key = seed.integer(64)
        stories: list[np.ndarray] = []
        for first in range(0, num_rows, self.batch):
            stories += self._batch(model, np.arange(first, min(first + self.batch, num_rows)), limit, key)
            progress.tick(len(stories), num_rows, "stories")
        return Rows(tokens=Ragged.of(stories, np.uint16))

    def _batch(self, model: LanguageModel, story: np.ndarray, limit: int, key: int) -> list[np.ndarray]:
        import torch
        from transformers import DynamicCache

        end = model.tokenizer.end
        written = np.full((len(story), limit), end, dtype=np.uint16)
        length = np.zeros(len(story), dtype=np.int64)
        alive = np.arange(len(story))
        token = np.full(len(story), end, dtype=np.int64)
        cache: Any = DynamicCache()
        with torch.inference_mode():
            for position in range(limit):
                logits = model.net(
                    input_ids=torch.from_numpy(token)[:, None],
                    position_ids=torch.full((len(token), 1), position),
                    past_key_values=cache,
                    use_cache=True,
                ).logits[:, -1]
                token = choose(logits, uniform(key, story[alive], position), temperature=self.temperature)
                written[alive, position] = token
                length[alive] += 1
                going = token != end
                if not going.all():
                    alive, token = alive[going], token[going]
                    if not len(alive):
                        break
                    cache.batch_select_indices(torch.from_numpy(np.flatnonzero(going)))
        return [row[:number] for row, number in zip(written, length, strict=True)]


def choose(logits: Any, u: np.ndarray, *, temperature: float) -> np.ndarray:
    """The tokens at which the cumulative distribution of softmax(logits / temperature) passes `u`, in float64."""
    scaled = logits.double() / temperature
    weights = (scaled - scaled.amax(dim=-1, keepdim=True)).exp_().numpy()
    cumulative = np.cumsum(weights, axis=1)
    total = cumulative[:, -1:]
    if not np.isfinite(total).all():
        raise Stopped("non-finite", f"{int((~np.isfinite(total)).sum())} stories have logits that are NaN or infinite")
    token = (cumulative <= u[:, None] * total).sum(axis=1)
    # u * total may round up to the total: then the last token that has any probability
    last = weights.shape[1] - 1 - np.argmax(weights[:, ::-1] > 0, axis=1)
    return np.asarray(np.minimum(token, last), dtype=np.int64)


def uniform(key: int, story: np.ndarray, position: int) -> np.ndarray:
    """Numbers in [0, 1), one for each (key, story, position), of 53 bits, by the splitmix64 finaliser (Steele et al., 2014)."""
    state = np.uint64(key) ^ _mixed(story.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1))
    state = _mixed(state + np.array(position, dtype=np.uint64) * np.uint64(0xD1B54A32D192ED03))
    return (_mixed(state) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))

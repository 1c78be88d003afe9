"""Learners: small transformers trained from scratch on stories, by AdamW with warm-up and cosine decay."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from refeed.core import progress
from refeed.core.errors import Stopped, StudyError
from refeed.core.protocols import Data
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.families.language import nets
from refeed.families.language.layout import Batch, Packed
from refeed.families.language.model import LanguageModel
from refeed.families.language.source import LanguageWorld, stories_of


@dataclass(frozen=True, kw_only=True)
class Transformer(ABC):
    """A transformer and how it is trained. Loss: nats a token over every token of a story and its end, from the end token on.

    `width`, `layers`, `heads`, `feed_forward` (4 x width unless given): the network's shape. `context`: the most tokens it sees.
    `initial_deviation`: standard deviation of the initial weights, 1 / sqrt(width) unless given. (transformers' own 0.02, made for
    widths near 1000, leaves a narrow network's attention flat: it then takes several times the steps to learn to copy a word.)
    `epochs`: passes over the training set, whatever its size, so that n times the rows take n times the steps; or, if `steps` is
    set, that many steps. `batch_tokens`: tokens a step. `warm_up`: fraction of the steps in which the learning rate rises to
    `learning_rate`; it falls to zero along a cosine. `weight_decay` (AdamW) acts on matrices. `clip`: largest gradient norm.

    Stories are shuffled each epoch and packed whole into blocks of `context` tokens; attention does not cross from one story to
    the next and positions start anew, so a story is seen in training as it is in sampling and scoring. One longer than the context
    is cut into pieces of it.
    """

    width: int = 64
    layers: int = 2
    heads: int = 4
    feed_forward: int | None = None
    initial_deviation: float | None = None
    context: int = 256
    epochs: int = 1
    steps: int | None = None
    batch_tokens: int = 1024
    learning_rate: float = 5e-3
    warm_up: float = 0.1
    weight_decay: float = 0.1
    clip: float = 1.0
    provides: ClassVar[frozenset[str]] = frozenset({"log_prob", "warm_start", "steps"})
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "epochs", "batch_tokens"):
            _positive(name, getattr(self, name))
        for name in ("learning_rate", "clip"):
            _positive(name, getattr(self, name), least="more than 0")
        for name in ("feed_forward", "steps"):
            if getattr(self, name) is not None:
                _positive(name, getattr(self, name))
        if self.initial_deviation is not None:
            _positive("initial_deviation", self.initial_deviation, least="more than 0")
        if self.context < 2:
            raise StudyError(f"learner.context must be at least 2, not {self.context}")
        if self.width % self.heads:
            raise StudyError(f"learner.width = {self.width} must be a multiple of learner.heads = {self.heads}")
        if not 0 <= self.warm_up < 1:
            raise StudyError(f"learner.warm_up is a fraction of the steps, from 0 to below 1, not {self.warm_up}")
        if self.weight_decay < 0:
            raise StudyError(f"learner.weight_decay must not be negative, not {self.weight_decay}")

    @abstractmethod
    def _config(self, *, vocabulary: int, end: int) -> Any: ...

    def fit(self, data: Data, *, world: LanguageWorld, seed: Seed, start: LanguageModel | None = None) -> LanguageModel:
        pieces = list(data)
        weights = np.concatenate([np.full(len(rows), weight) for rows, weight in pieces])
        stories = stories_of(Rows.concatenate([rows for rows, _ in pieces]))
        packed = Packed(stories, weights, context=self.context, end=world.tokenizer.end)
        steps = self.steps
        if steps is None and data.visits != data.num_rows:  # as many steps as an epoch of so many rows takes
            steps = max(1, round(packed.num_steps(self.epochs, self.batch_tokens, seed / "order") * data.visits / data.num_rows))
        epochs = self.epochs if steps is None else None
        config = self._config(vocabulary=world.tokenizer.size, end=world.tokenizer.end)
        net = nets.build(config, seed=(seed / "weights").integer())
        if start is not None:
            net.load_state_dict(start.net.state_dict())
        self._train(net, packed.batches(epochs, steps, self.batch_tokens, seed / "order"))
        return LanguageModel(net=net, tokenizer=world.tokenizer)

    def load(self, folder: Path) -> LanguageModel:
        return LanguageModel.load(folder)

    def _train(self, net: Any, batches: Iterator[tuple[Batch, int, int]]) -> None:
        import torch

        matrices = [parameter for parameter in net.parameters() if parameter.ndim > 1]
        others = [parameter for parameter in net.parameters() if parameter.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": self.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=self.learning_rate,
            betas=(0.9, 0.95),
            fused=True,
        )
        net.train()
        for batch, step, num_steps in batches:
            rate = self.learning_rate * schedule(step, num_steps, warm_up=self.warm_up)
            for group in optimizer.param_groups:
                group["lr"] = rate
            logits_BTV = net(
                input_ids=torch.from_numpy(batch.inputs),
                position_ids=torch.from_numpy(batch.positions),
                attention_mask=torch.from_numpy(batch.mask()),
                use_cache=False,
            ).logits
            nats = torch.nn.functional.cross_entropy(
                logits_BTV.flatten(0, 1), torch.from_numpy(batch.targets).flatten(), reduction="none", ignore_index=-100
            )
            loss = (nats * torch.from_numpy(batch.weights).flatten()).sum() / batch.num_tokens
            if not math.isfinite(value := loss.item()):
                raise Stopped("diverged", f"the training loss became {value} at step {step + 1} of {num_steps}")
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), self.clip)
            optimizer.step()
            optimizer.zero_grad()
            progress.tick(step + 1, num_steps, "steps")
        net.eval()
        if not all(torch.isfinite(parameter).all() for parameter in net.parameters()):
            raise Stopped("non-finite", "the fitted weights hold NaN or infinite values")


@dataclass(frozen=True, kw_only=True)
class GPT2(Transformer):
    """GPT-2: learned positions, layer norm, GELU, tied embeddings."""

    def _config(self, *, vocabulary: int, end: int) -> Any:
        return nets.gpt2(
            vocabulary=vocabulary,
            end=end,
            context=self.context,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            feed_forward=self.feed_forward or 4 * self.width,
            deviation=self.initial_deviation or self.width**-0.5,
        )


@dataclass(frozen=True, kw_only=True)
class Llama(Transformer):
    """Llama: rotary positions, RMS norm, gated SiLU; embeddings tied or, as in the paper, not."""

    tied: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width // self.heads % 2:
            raise StudyError(f"learner.width / learner.heads must be even for rotary positions, not {self.width // self.heads}")

    def _config(self, *, vocabulary: int, end: int) -> Any:
        return nets.llama(
            vocabulary=vocabulary,
            end=end,
            context=self.context,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            feed_forward=self.feed_forward or 4 * self.width,
            deviation=self.initial_deviation or self.width**-0.5,
            tied=self.tied,
        )


def schedule(step: int, num_steps: int, *, warm_up: float) -> float:
    """The learning rate at a step, as a share of its peak: linear up to it, then a cosine to zero."""
    rising = max(1, round(warm_up * num_steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, num_steps - rising)))


def _positive(name: str, value: float, *, least: str = "at least 1") -> None:
    if not value >= (1 if least == "at least 1" else math.ulp(0.0)):
        raise StudyError(f"learner.{name} must be {least}, not {value}")

"""Learners: GPT-2, Llama or any causal transformer, trained on stories by AdamW, from scratch or from given weights."""

from __future__ import annotations

import copy
import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from refeed.core.devices import granted
from refeed.core.errors import StudyError
from refeed.core.protocols import Data
from refeed.core.seeds import Seed
from refeed.families.language import nets, pretrained, vocabulary
from refeed.families.language.layout import TrainingText
from refeed.families.language.model import LanguageModel
from refeed.families.language.source import LanguageWorld, stories_of
from refeed.families.language.vocabulary import Tokenizer

OWN_STARTS = ("scratch", "previous")  # no weights from outside
CURVE_ROWS = 200  # held-out stories that a point of a learning curve looks at


@dataclass(frozen=True, kw_only=True)
class Trained(ABC):
    """How a network is trained. Loss: nats a token over every token of a story and its end, from the end token on.

    `context`: the most tokens that are seen together. `epochs`: passes over the training set, whatever its size, so that n times
    the rows take n times the steps; or, if `steps` is set, that many steps. A step is about `batch_tokens` tokens of whole stories,
    or exactly `batch_stories` stories; beyond `micro_tokens` its gradient is summed over several parts. `warm_up`: fraction of the
    steps in which the learning rate rises to `learning_rate`; it falls to zero along a cosine or (`schedule = "linear"`) a line.
    `weight_decay` (AdamW) acts on matrices. `clip`: largest gradient norm. `precision`: of the products; weights, norms,
    residuals, sums and the optimiser stay float32. `curve`: so many times, evenly over the steps, the loss on the first 200
    held-out stories is noted, for the metric learning_curve; it changes nothing else.

    Stories are shuffled each epoch and laid end to end; attention does not cross from one story to the next and positions start
    anew, so a story is seen in training as it is in sampling and scoring. One longer than the context is cut into pieces of it.
    """

    context: int = 256
    epochs: int = 1
    steps: int | None = None
    batch_tokens: int = 1024
    batch_stories: int | None = None
    micro_tokens: int = 4096
    learning_rate: float = 5e-3
    warm_up: float = 0.1
    schedule: Literal["cosine", "linear"] = "cosine"
    weight_decay: float = 0.1
    clip: float = 1.0
    precision: Literal["float32", "bfloat16"] = "float32"
    curve: int = 0
    provides: ClassVar[frozenset[str]] = frozenset({"log_prob", "warm_start", "pretrained", "steps", "curve", "devices"})
    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_tokens", "micro_tokens"):
            _positive(name, getattr(self, name))
        for name in ("learning_rate", "clip"):
            _positive(name, getattr(self, name), least="more than 0")
        for name in ("steps", "batch_stories"):
            if getattr(self, name) is not None:
                _positive(name, getattr(self, name))
        if self.curve < 0:
            raise StudyError(f"learner.curve must be 0 (off) or a number of points, not {self.curve}")
        if self.context < 2:
            raise StudyError(f"learner.context must be at least 2, not {self.context}")
        if not 0 <= self.warm_up < 1:
            raise StudyError(f"learner.warm_up is a fraction of the steps, from 0 to below 1, not {self.warm_up}")
        if self.weight_decay < 0:
            raise StudyError(f"learner.weight_decay must not be negative, not {self.weight_decay}")
        for name, known in (("schedule", ("cosine", "linear")), ("precision", ("float32", "bfloat16"))):
            if getattr(self, name) not in known:
                raise StudyError(f"learner.{name} must be {' or '.join(known)}, not {getattr(self, name)!r}")

    @abstractmethod
    def _net(self, tokenizer: Tokenizer, *, seed: Seed, start: LanguageModel | None) -> Any:
        """The network to be trained: with random weights from `seed`, or with those of `start`."""

    def check(self, *, source: Any, start: str) -> None:
        """Refuse weights to start from whose tokens are not the source's."""
        if start not in OWN_STARTS and hasattr(source, "given_tokenizer"):
            theirs = vocabulary.given(*pretrained.tokenizer_files(start), name=start)
            pretrained.refuse_other_tokens(theirs, source.given_tokenizer(), name=start)

    def fit(self, data: Data, *, world: LanguageWorld, seed: Seed, start: LanguageModel | None = None) -> LanguageModel:
        from refeed.families.language.launch import together
        from refeed.families.language.training import Training, train

        text = TrainingText([(stories_of(rows), weight) for rows, weight in data], context=self.context, end=world.tokenizer.end)
        if start is not None:
            pretrained.refuse_other_tokens(start.tokenizer, world.tokenizer)
        net = self._net(world.tokenizer, seed=seed / "weights", start=start)
        nets.limit_context(net, self.context)
        model = LanguageModel(net=net, tokenizer=world.tokenizer)
        held_out = stories_of(world.test.take(np.arange(min(CURVE_ROWS, len(world.test)))))
        num_steps = self._num_steps(text, data)
        training = Training(model=model, text=text, learner=self, num_steps=num_steps, seed=seed / "order", held_out=held_out)
        curve = together(training, granted()) if granted().count > 1 else train(training)[0]
        return dataclasses.replace(model, curve=tuple(curve))

    def _num_steps(self, text: TrainingText, data: Data) -> int:
        """The steps asked for, or so many epochs, an epoch being as many rows as the policy counts as one."""
        if self.steps is not None:
            return self.steps
        per_epoch = text.steps_per_epoch(batch_tokens=self.batch_tokens, batch_stories=self.batch_stories)
        return max(1, round(self.epochs * per_epoch * data.visits / data.num_rows))

    def load(self, folder: Path) -> LanguageModel:
        return LanguageModel.load(folder)

    def given(self, name: str) -> LanguageModel:
        """The model in a folder, or of that name on the hub: what every generation's fit begins from."""
        tokenizer = vocabulary.given(*pretrained.tokenizer_files(name), name=name)
        return LanguageModel(net=nets.load_given(pretrained.folder(name)), tokenizer=tokenizer)

    def given_digest(self, name: str) -> str:
        """What stands for that model in a recipe: the content of its weights, not where they lie."""
        return pretrained.weights_digest(name)


@dataclass(frozen=True, kw_only=True)
class Transformer(Trained, ABC):
    """A network of a shape that is said here.

    `width`, `layers`, `heads`, `feed_forward` (4 x width unless given). `initial_deviation`: standard deviation of the initial
    weights, 1 / sqrt(width) unless given. (transformers' own 0.02, made for widths near 1000, leaves a narrow network's attention
    flat: it then takes several times the steps to learn to copy a word.)
    """

    width: int = 64
    layers: int = 2
    heads: int = 4
    feed_forward: int | None = None
    initial_deviation: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("width", "layers", "heads"):
            _positive(name, getattr(self, name))
        if self.feed_forward is not None:
            _positive("feed_forward", self.feed_forward)
        if self.initial_deviation is not None:
            _positive("initial_deviation", self.initial_deviation, least="more than 0")
        if self.width % self.heads:
            raise StudyError(f"learner.width = {self.width} must be a multiple of learner.heads = {self.heads}")

    @abstractmethod
    def config(self, *, size: int, end: int) -> Any:
        """The configuration in transformers, for so many tokens."""

    def _net(self, tokenizer: Tokenizer, *, seed: Seed, start: LanguageModel | None) -> Any:
        net = nets.build(self.config(size=tokenizer.size, end=tokenizer.end), seed=seed.integer())
        if start is not None:
            pretrained.refuse_other_shape(start.net, net)
            net.load_state_dict(start.net.state_dict())
        return net

    def check(self, *, source: Any, start: str) -> None:
        """Also weights that are of another shape than this."""
        super().check(source=source, start=start)
        if start not in OWN_STARTS:
            tokenizer = vocabulary.given(*pretrained.tokenizer_files(start), name=start)
            ours = nets.outline(self.config(size=tokenizer.size, end=tokenizer.end))
            pretrained.refuse_other_shape(nets.outline(nets.given_config(pretrained.folder(start))), ours)


@dataclass(frozen=True, kw_only=True)
class GPT2(Transformer):
    """GPT-2: learned positions, as many as `positions` (the context unless given), layer norm, GELU, tied embeddings."""

    positions: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.positions is not None and self.positions < self.context:
            raise StudyError(f"learner.positions = {self.positions} must be at least learner.context = {self.context}")

    def config(self, *, size: int, end: int) -> Any:
        return nets.gpt2(
            vocabulary=size,
            end=end,
            context=self.positions or self.context,
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

    def config(self, *, size: int, end: int) -> Any:
        return nets.llama(
            vocabulary=size,
            end=end,
            context=self.context,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            feed_forward=self.feed_forward or 4 * self.width,
            deviation=self.initial_deviation or self.width**-0.5,
            tied=self.tied,
        )


@dataclass(frozen=True, kw_only=True)
class Causal(Trained):
    """Any causal language model of transformers: the architecture of `model`, a folder or a name on the hub.

    With `start = "scratch"` its configuration with random weights and as many tokens as the source's tokenizer has. With weights to
    start from (`start = FOLDER or NAME` in the study) their own architecture, and `model` need not be said.
    """

    model: str = ""
    learning_rate: float = 1e-4

    def check(self, *, source: Any, start: str) -> None:
        """Also a learner that was told no architecture, and one that would read farther than the architecture can."""
        super().check(source=source, start=start)
        if not (name := self.model if start in OWN_STARTS else start):
            raise _shapeless()
        pretrained.refuse_longer_context(self.context, name=name)

    def identity(self) -> dict[str, object]:
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {"model": pretrained.architecture(self.model) if self.model else ""}

    def _net(self, tokenizer: Tokenizer, *, seed: Seed, start: LanguageModel | None) -> Any:
        if start is not None:
            return copy.deepcopy(start.net)
        if not self.model:
            raise _shapeless()
        config = nets.read_config(pretrained.folder(self.model), vocabulary=tokenizer.size, end=tokenizer.end)
        return nets.build(config, seed=seed.integer())


def _shapeless() -> StudyError:
    return StudyError(
        "learner 'causal' needs an architecture or weights to start from.",
        hint="Type: --set learner.model=FOLDER-or-NAME, or --set start=FOLDER-or-NAME",
        at="learner",
    )


def _positive(name: str, value: float, *, least: str = "at least 1") -> None:
    if not value >= (1 if least == "at least 1" else math.ulp(0.0)):
        raise StudyError(f"learner.{name} must be {least}, not {value}")

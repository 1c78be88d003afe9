"""What is measured of a language model: loss on real held-out stories, grammar, and an audit of what it writes.

Metrics of samples judge the first N stories sampled, N being the number of real training stories, because policies sample
different amounts and every count of distinct things grows with the sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from refeed.core.errors import StudyError
from refeed.core.protocols import Quantity
from refeed.core.rows import Ragged, Rows
from refeed.core.seeds import Seed
from refeed.families.language.grammar import Grammar
from refeed.families.language.model import LanguageModel
from refeed.families.language.source import LanguageWorld, stories_of
from refeed.families.language.statistics import distinct, effective_support


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """-log p(story) on the held-out real stories, their ends included: the mean a token, a story, and a byte of text.

    Nats a token = (sum over stories of -log p) / (sum of tokens): tokens are weighted equally, not stories. Where the source knows
    its own probabilities, its -log p of the same stories is the reference, and the difference a story is an unbiased estimate of
    KL(source || model): with r = log p_source - log p_model, its standard error is sd(r) / sqrt(stories).
    """

    name: ClassVar[str] = "cross_entropy"
    needs: ClassVar[frozenset[str]] = frozenset({"log_prob"})
    quantities: ClassVar[tuple[Quantity, ...]] = (
        Quantity(
            name="cross_entropy",
            unit="nats/token",
            role="risk",
            reference="source_cross_entropy",
            meaning="loss on held-out real stories",
        ),
        Quantity(name="cross_entropy_story", unit="nats/story", meaning="loss on held-out real stories, a story"),
        Quantity(name="cross_entropy_byte", unit="nats/byte", meaning="the same a byte: comparable between tokenizers"),
        Quantity(
            name="longer_than_context",
            better="neither",
            meaning="share of test stories read in windows",
            notice="of the held-out stories exceed the context; they are read in windows, and cut in training",
        ),
        Quantity(
            name="source_cross_entropy",
            unit="nats/token",
            better="neither",
            role="reference",
            meaning="the source's own loss on the same stories; only where the source knows its probabilities",
        ),
        Quantity(name="kl", unit="nats/story", meaning="KL(source || model), estimated on the same stories"),
        Quantity(name="kl_standard_error", unit="nats/story", better="neither", meaning="its standard error over stories"),
    )
    version: ClassVar[int] = 1

    def measure(self, model: LanguageModel, *, world: LanguageWorld, samples: Rows | None, seed: Seed) -> dict[str, float]:
        stories = stories_of(world.test)
        nats = -model.log_prob(stories)
        num_tokens = len(stories.values)
        result = {
            "cross_entropy": nats.sum() / num_tokens,
            "cross_entropy_story": nats.mean(),
            "cross_entropy_byte": nats.sum() / world.tokenizer.num_bytes(stories).sum(),
            "longer_than_context": (stories.lengths > model.context).mean(),
        }
        if world.grammar is not None:
            reference = -world.grammar.log_prob(stories)
            result |= {"source_cross_entropy": reference.sum() / num_tokens, "kl": (nats - reference).mean()}
            result["kl_standard_error"] = (nats - reference).std() / np.sqrt(len(stories))
        return {name: float(value) for name, value in result.items()}


@dataclass(frozen=True, kw_only=True)
class GrammarCheck:
    """What the grammar says of sampled stories: are they its stories, and do its rare words still occur?

    A story is grammatical if the grammar gives it a positive probability: agreement holds in every sentence, and it has its end.
    Rare words are the rarest open-class words, as many as together make at most `tail` of the open-class draws of the true
    distribution; tail recall is the share of them that occur at all in the sample. The effective support of a distribution p is
    exp(entropy), the number of equally likely words with the same entropy (plug-in estimate from counts).
    """

    tail: float = 0.05
    name: ClassVar[str] = "grammar"
    needs: ClassVar[frozenset[str]] = frozenset({"samples", "grammar"})
    quantities: ClassVar[tuple[Quantity, ...]] = (
        Quantity(name="grammatical", better="higher", role="quality", meaning="share of sampled stories the grammar can say"),
        Quantity(
            name="tail_recall",
            better="higher",
            role="tail",
            reference="tail_recall_real",
            meaning="share of the rare words that still occur",
        ),
        Quantity(
            name="tail_recall_real",
            better="neither",
            role="reference",
            meaning="the same for as many real training stories: the most to expect",
        ),
        Quantity(
            name="effective_words",
            reference="effective_words_real",
            unit="words",
            better="higher",
            role="diversity",
            meaning="exp(entropy) of the words of sampled stories",
        ),
        Quantity(
            name="effective_words_real",
            unit="words",
            better="neither",
            role="reference",
            meaning="the same for real training stories",
        ),
        Quantity(name="stories_judged", unit="stories", better="neither", meaning="sampled stories looked at"),
    )
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0 < self.tail <= 1:
            raise StudyError(f"the grammar metric's tail is a share of the words' probability, in (0, 1], not {self.tail}")

    def measure(self, model: LanguageModel, *, world: LanguageWorld, samples: Rows | None, seed: Seed) -> dict[str, float]:
        grammar = _grammar(world)
        stories, real = _judged(self.name, samples, world), stories_of(world.train)
        rare = grammar.rare_words(self.tail)
        if not len(rare):
            raise StudyError(f"no word is as rare as {self.tail} of the open-class words", hint="Raise the metric's tail.")
        size = world.tokenizer.size
        return {
            "grammatical": float(np.isfinite(grammar.log_prob(stories)).mean()),
            "tail_recall": float(np.isin(rare, stories.values).mean()),
            "tail_recall_real": float(np.isin(rare, real.values).mean()),
            "effective_words": effective_support(np.bincount(stories.values, minlength=size)),
            "effective_words_real": effective_support(np.bincount(real.values, minlength=size)),
            "stories_judged": float(len(stories)),
        }


@dataclass(frozen=True, kw_only=True)
class SampleAudit:
    """Is the sample what it should be: distinct stories, as long as real ones, that reach their end?

    Duplicates above chance: the share of stories that repeat an earlier one, less that share among the real training
    stories. Distinct-3: different triples of tokens over all triples, within stories, pooled over the sample's first
    `budget` x (tokens of the real training stories) tokens: a fixed number, because the ratio falls with the amount of text.
    """

    budget: float = 0.5
    name: ClassVar[str] = "sample_audit"
    needs: ClassVar[frozenset[str]] = frozenset({"samples"})
    quantities: ClassVar[tuple[Quantity, ...]] = (
        Quantity(name="unique", better="higher", meaning="distinct stories over sampled stories"),
        Quantity(
            name="duplicates_above_chance",
            role="audit",
            meaning="share of repeats, less that among real stories",
        ),
        Quantity(name="mean_tokens", unit="tokens", better="neither", meaning="length of a sampled story"),
        Quantity(name="ended", better="higher", meaning="share of sampled stories with an end token"),
        Quantity(
            name="distinct_3",
            reference="distinct_3_real",
            better="higher",
            role="diversity",
            meaning="distinct triples of tokens over all, pooled at a fixed number of tokens",
        ),
        Quantity(name="distinct_3_real", better="neither", role="reference", meaning="the same for the real training stories"),
        Quantity(name="tokens_judged", unit="tokens", better="neither", meaning="tokens that distinct_3 saw"),
    )
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0 < self.budget <= 1:
            raise StudyError(f"the sample audit's budget is a share of the real tokens, in (0, 1], not {self.budget}")

    def measure(self, model: LanguageModel, *, world: LanguageWorld, samples: Rows | None, seed: Seed) -> dict[str, float]:
        stories, real = _judged(self.name, samples, world), stories_of(world.train)
        unique = _unique(stories)
        budget = int(self.budget * len(real.values))
        last = stories.values[np.maximum(stories.offsets[1:] - 1, 0)]
        return {
            "unique": unique,
            "duplicates_above_chance": _unique(real.take(np.arange(min(len(stories), len(real))))) - unique,
            "mean_tokens": float(stories.lengths.mean()),
            "ended": float((last == world.tokenizer.end).mean()),
            "distinct_3": distinct(stories, order=3, budget=budget),
            "distinct_3_real": distinct(real, order=3, budget=budget),
            "tokens_judged": float(min(budget, len(stories.values))),
        }


def _judged(metric: str, samples: Rows | None, world: LanguageWorld) -> Ragged:
    if samples is None or not len(samples):
        raise StudyError(f"metric {metric!r} needs sampled stories, but the policy samples none")
    return stories_of(samples.take(np.arange(min(len(samples), len(world.train)))))


def _grammar(world: LanguageWorld) -> Grammar:
    if world.grammar is None:
        raise StudyError(
            "metric 'grammar' needs a source that knows its grammar, but this one only has text",
            hint="Drop the metric, or set source = 'story-grammar'.",
        )
    return world.grammar


def _unique(stories: Ragged) -> float:
    return len({story.tobytes() for story in stories}) / len(stories)

"""What is measured of sampled text beyond its loss: variety, repetition, copying, the tail; and what a model makes of earlier rows.

All look at a fixed number of tokens, the same for every generation and policy, since nearly all of these numbers move with the
amount of text. Those that end in `_real` say the same of held-out real stories, as many tokens: the floor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from refeed.core.errors import StudyError
from refeed.core.protocols import Quantity, with_real
from refeed.core.rows import Ragged, Rows
from refeed.core.seeds import Seed
from refeed.families.language import statistics
from refeed.families.language.model import LanguageModel
from refeed.families.language.source import LanguageWorld, stories_of

_TEXT = (
    ("entropy", "nats/token", "higher", "diversity", "entropy of single tokens"),
    ("effective_tokens", "tokens", "higher", "other", "exp(entropy): equally likely tokens with the same entropy"),
    ("zipf_slope", "1", "neither", "other", "s of count ~ rank^-s, over tokens seen five times or more"),
    ("unseen_pairs", "1", "higher", "other", "Good-Turing mass of pairs of tokens that were not seen"),
    ("distinct_1", "1", "higher", "other", "different tokens over tokens"),
    ("distinct_2", "1", "higher", "other", "different pairs of neighbours over pairs"),
    ("self_bleu", "1", "lower", "other", "BLEU-4 of a story against the others: higher is more alike"),
    ("compression_ratio", "1", "lower", "other", "bytes over compressed bytes: higher is more repetitive"),
    ("near_duplicates", "1", "lower", "other", "share of stories half of whose runs of five tokens are in one earlier story"),
    ("copied_runs", "1", "neither", "other", "share of runs of `run` tokens that occur in the real training rows"),
    ("rare_recall", "1", "higher", "tail", "share of the rarest half of the real words that still occurs"),
)
_RECALL: dict[str, Any] = {"series": "words that still occur", "along": "tenth of the real words, from the commonest to the rarest"}


@dataclass(frozen=True, kw_only=True)
class TextStatistics:
    """Statistics of the first tokens sampled, beside the same of held-out real stories; see `statistics` for each definition.

    `budget`: a share of the tokens of the held-out stories, or of the training stories where those have fewer: half, so that
    stories may become half as long and the number stays the same. Where samples have fewer still, as many tokens of real stories
    are looked at; `text_tokens` counts them. `run`: length of the runs of tokens that count as copied.
    `recall_1` to `recall_10`: the share of real training words that still occur, by tenths from the commonest to the rarest.
    """

    budget: float = 0.5
    run: int = 8
    name: ClassVar[str] = "text"
    needs: ClassVar[frozenset[str]] = frozenset({"samples"})
    quantities: ClassVar[tuple[Quantity, ...]] = (
        *with_real(
            *_TEXT,
            *(
                Quantity(
                    name=f"recall_{n}", better="higher", meaning=f"words that still occur, tenth {n} by rarity", at=n, **_RECALL
                )
                for n in range(1, 11)
            ),
            real="held-out stories",
        ),
        Quantity(name="text_tokens", unit="tokens", better="neither", meaning="tokens that the statistics of text saw"),
    )
    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if not 0 < self.budget <= 1:
            raise StudyError(f"the text metric's budget is a share of the real tokens, in (0, 1], not {self.budget}")
        if self.run < 2:
            raise StudyError(f"the text metric's run must be at least 2 tokens, not {self.run}")

    def measure(self, model: LanguageModel, *, world: LanguageWorld, samples: Rows | None, seed: Seed) -> dict[str, float]:
        if samples is None or not len(samples):
            raise StudyError("metric 'text' needs sampled stories, but the policy samples none")
        made, real = stories_of(samples), stories_of(world.test)
        budget = int(self.budget * min(len(real.values), len(stories_of(world.train).values)))
        seen = statistics.first_tokens(made, budget)
        result = {"text_tokens": float(len(seen.values))}
        for stories, ending in ((seen, ""), (statistics.first_tokens(real, min(budget, len(made.values))), "_real")):
            result |= {f"{name}{ending}": value for name, value in self._of(stories, world).items()}
        return {name: value for name, value in result.items() if np.isfinite(value)}

    def _of(self, stories: Ragged, world: LanguageWorld) -> dict[str, float]:
        train, size = stories_of(world.train), world.tokenizer.size
        counts, real_counts = (np.bincount(s.values, minlength=size) for s in (stories, train))
        recall = statistics.recall_by_rarity(counts, real_counts)
        text = "\n".join(world.tokenizer.decode(story) for story in stories).encode()
        num_tokens = len(stories.values)
        return {
            "entropy": statistics.entropy(counts),
            "effective_tokens": statistics.effective_support(counts),
            "zipf_slope": statistics.zipf_slope(counts),
            "unseen_pairs": statistics.unseen_mass(statistics.runs(stories, 2)),
            "distinct_1": statistics.distinct(stories, order=1, budget=num_tokens),
            "distinct_2": statistics.distinct(stories, order=2, budget=num_tokens),
            "self_bleu": statistics.self_bleu(stories),
            "compression_ratio": statistics.compression_ratio(text),
            "near_duplicates": statistics.near_duplicates(stories),
            "copied_runs": statistics.copied(stories, train, order=self.run),
            "rare_recall": float(np.mean(recall[5:])),
            **{f"recall_{number}": float(value) for number, value in enumerate(recall, start=1)},
        }


@dataclass(frozen=True, kw_only=True)
class EarlierRows:
    """The loss on the rows of every earlier generation: nats a token on the first `rows` stories that each model wrote.

    `loss_on_0` is of the real training rows, `loss_on_g` of what the model of generation g sampled, `loss_on_own` of its own
    samples, an estimate of its entropy. A model that drifts finds early rows ever less likely and its own ever more so.
    `generations`: the most that are reported.
    """

    rows: int = 200
    generations: int = 20
    name: ClassVar[str] = "earlier_rows"
    needs: ClassVar[frozenset[str]] = frozenset({"log_prob", "samples", "history"})
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.rows < 1 or self.generations < 1:
            raise StudyError(f"metric earlier_rows needs rows and generations of at least 1, not {self.rows}, {self.generations}")

    @property
    def history_rows(self) -> int:
        return self.rows

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        about = [("own", "what it sampled itself"), ("0", "real training rows")]
        about += [(str(g), f"what generation {g} sampled") for g in range(1, self.generations)]
        curve: dict[str, Any] = {"series": "loss on the rows of every generation", "along": "rows of generation (0: real)"}
        return tuple(
            Quantity(
                name=f"loss_on_{which}",
                unit="nats/token",
                better="neither",
                meaning=f"loss on {what}",
                **({} if which == "own" else curve | {"at": float(which)}),
            )
            for which, what in about
        )

    def measure(
        self, model: LanguageModel, *, world: LanguageWorld, samples: Rows | None, seed: Seed, history: list[Rows]
    ) -> dict[str, float]:
        sets = {"0": world.train} | {str(g): rows for g, rows in enumerate(history, start=1) if g < self.generations}
        if samples is not None and len(samples):
            sets["own"] = samples
        found = {}
        for which, rows in sets.items():
            stories = stories_of(rows.take(np.arange(min(self.rows, len(rows)))))
            if len(stories.values):
                found[f"loss_on_{which}"] = float(-model.log_prob(stories).sum() / len(stories.values))
        return found


@dataclass(frozen=True, kw_only=True)
class NearCopies:
    """Near-duplicates across generations: the share of sampled stories half of whose runs of five tokens are in one earlier story.

    `near_copies_0`: in one real training story, `near_copies_g`: in one that the model of generation g sampled; `near_copies_real`:
    the share of held-out real stories that are in one real training story, the floor. Of every set the first T tokens are taken, T
    those of the first `rows` held-out stories, and at most 2 x `rows` stories. `generations`: the most that are reported.
    """

    rows: int = 200
    generations: int = 20
    name: ClassVar[str] = "near_copies"
    needs: ClassVar[frozenset[str]] = frozenset({"samples", "history"})
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.rows < 1 or self.generations < 1:
            raise StudyError(f"metric near_copies needs rows and generations of at least 1, not {self.rows}, {self.generations}")

    @property
    def history_rows(self) -> int:
        return 2 * self.rows

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        curve: dict[str, Any] = {"series": "near copies of earlier rows", "along": "rows of generation (0: real)"}
        about = ["of real training stories", *(f"of what generation {g} sampled" for g in range(1, self.generations))]
        return (
            *(
                Quantity(name=f"near_copies_{g}", reference="near_copies_real", meaning=f"near copies {what}", at=float(g), **curve)
                for g, what in enumerate(about)
            ),
            Quantity(name="near_copies_real", better="neither", role="reference", meaning="the same of held-out real stories"),
        )

    def measure(
        self, model: LanguageModel, *, world: LanguageWorld, samples: Rows | None, seed: Seed, history: list[Rows]
    ) -> dict[str, float]:
        if samples is None or not len(samples):
            raise StudyError("metric 'near_copies' needs sampled stories, but the policy samples none")
        held_out = stories_of(world.test)
        budget = int(held_out.offsets[min(self.rows, len(held_out))])

        def first(rows: Rows) -> Ragged:
            return statistics.first_tokens(stories_of(rows.take(np.arange(min(self.history_rows, len(rows))))), budget)

        earlier = [first(rows) for rows in (world.train, *history[: self.generations - 1])]
        found = {f"near_copies_{g}": statistics.near_copies(first(samples), given) for g, given in enumerate(earlier)}
        return found | {"near_copies_real": statistics.near_copies(first(world.test), earlier[0])}


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """The loss on held-out stories while the model was trained: `curve_i` after the i-th of `points` equal shares of its steps.

    The learner notes it: set learner.curve to the same number.
    """

    points: int = 8
    name: ClassVar[str] = "learning_curve"
    needs: ClassVar[frozenset[str]] = frozenset({"curve"})
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.points < 1:
            raise StudyError(f"metric learning_curve needs points >= 1, not {self.points}")

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        about = [(n, f"held-out loss after {n} of {self.points} parts of training") for n in range(1, self.points + 1)]
        curve: dict[str, Any] = {"series": "learning curve", "along": "share of training"}
        return tuple(
            Quantity(name=f"curve_{n}", unit="nats/token", meaning=meaning, at=n / self.points, **curve) for n, meaning in about
        )

    def check(self, *, source: Any, learner: Any) -> None:
        """Refuse a learner that notes another number of points."""
        self._refuse_other_than(getattr(learner, "curve", self.points))

    def _refuse_other_than(self, noted: int) -> None:
        if noted != self.points:
            message = f"metric learning_curve asks for {self.points} points, and the learner notes {noted}"
            raise StudyError(message, hint=f"Type: --set learner.curve={self.points}", at="learner")

    def measure(self, model: LanguageModel, *, world: LanguageWorld, samples: Rows | None, seed: Seed) -> dict[str, float]:
        self._refuse_other_than(len(model.curve))
        return {f"curve_{n}": value for n, value in enumerate(model.curve, start=1)}

"""Statistics of text by hand and by counting, and metrics that look at earlier generations."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from refeed.core.errors import StudyError
from refeed.core.memory import Memory
from refeed.core.protocols import Quantity
from refeed.core.rows import Ragged, Rows
from refeed.core.seeds import Seed
from refeed.families.language import statistics
from refeed.families.language.learner import Llama
from refeed.families.language.sampler import Ancestral
from refeed.families.language.source import StoryGrammar, stories_of
from refeed.families.language.text_metrics import EarlierRows, LearningCurve, NearCopies, TextStatistics
from refeed.studies import Case, run
from refeed.workspace import Workspace
from toy import kept_study


def of(*stories):
    return Ragged.of(stories, np.uint16)


def random_stories(count, vocabulary, seed, *, longest=30):
    rng = np.random.default_rng(seed)
    return of(*(rng.integers(0, vocabulary, size=rng.integers(5, longest)) for _ in range(count)))


@pytest.mark.parametrize("width", [np.uint16, np.uint32])
@pytest.mark.parametrize("order", [1, 2, 3, 4, 8])
def test_codes_of_runs_are_equal_exactly_where_runs_are(order, width):
    small = random_stories(200, 4, 0)
    stories = Ragged(small.values.astype(width) * width(65536 if width is np.uint32 else 1), small.offsets)
    listed = [tuple(story[i : i + order]) for story in stories for i in range(len(story) - order + 1)]
    codes = statistics.runs(stories, order)
    assert len(codes) == len(listed)
    assert (codes >= 0).all()
    assert len(set(zip(codes.tolist(), listed, strict=True))) == len(set(listed)) == len(set(codes.tolist()))


def test_statistics_by_hand():
    assert statistics.entropy(np.array([1, 1, 2])) == pytest.approx(1.5 * math.log(2))
    assert statistics.unseen_mass(np.array([4, 4, 5, 6])) == 0.5
    counts = 1000.0 / np.arange(1, 40) ** 1.2
    assert statistics.zipf_slope(counts, least=1) == pytest.approx(1.2)
    assert math.isnan(statistics.zipf_slope(np.array([9, 8])))
    assert statistics.copied(of([1, 2, 3, 4], [9, 9]), of([0, 2, 3, 4]), order=2) == pytest.approx(2 / 4)
    text = b"the dog " * 400
    assert statistics.compression_ratio(text) == len(text) / len(zlib.compress(text, 9))
    recall = statistics.recall_by_rarity(np.array([1, 0, 3, 0, 0]), np.array([9, 7, 5, 1, 0]), groups=2)
    assert recall.tolist() == [0.5, 0.5]
    assert len(statistics.first_tokens(of([1, 2], [3], [4, 5, 6]), 4)) == 2


def test_near_duplicates_are_stories_whose_runs_lie_in_one_earlier_story():
    long = list(range(20))
    assert statistics.near_duplicates(of(long, [*long[:14], *range(50, 55)], list(range(100, 120)))) == pytest.approx(1 / 3)
    assert statistics.near_duplicates(random_stories(50, 1000, 0)) == 0
    given = of(long, list(range(100, 120)))
    nearly, mixed = [*long[:14], *range(50, 55)], [*long[:9], *range(100, 109), 7, 7]
    assert statistics.near_copies(of(nearly, mixed, list(range(30, 50))), given) == pytest.approx(1 / 3)
    assert statistics.near_copies(of([1, 2]), given) == 0


def test_self_bleu_agrees_with_its_definition_counted_slowly():
    stories = [story.tolist() for story in random_stories(12, 3, 1, longest=12)]

    def grams(story, n):
        return [tuple(story[i : i + n]) for i in range(len(story) - n + 1)]

    scores = []
    for row, story in enumerate(stories):
        others, score = stories[:row] + stories[row + 1 :], 0.0
        for n in range(1, 5):
            mine = grams(story, n)
            clipped = sum(min(mine.count(g), max(grams(o, n).count(g) for o in others)) for g in set(mine))
            score += math.log(max(clipped, 0.5) / len(mine)) / 4
        nearest = min((len(o) for o in others), key=lambda length: abs(length - len(story)))
        scores.append(math.exp(score + min(0.0, 1 - nearest / len(story))))
    assert statistics.self_bleu(of(*stories)) == pytest.approx(np.mean(scores))
    assert statistics.self_bleu(of([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])) == 1
    assert math.isnan(statistics.self_bleu(of([1, 2])))


def test_text_is_judged_at_a_fixed_number_of_tokens_beside_real_text(model, world, samples):
    def measured(rows):
        values = TextStatistics().measure(model, world=world, samples=rows, seed=Seed(0))
        assert set(values) <= {quantity.name for quantity in TextStatistics.quantities}
        return values

    many = Rows.concatenate([samples] * 4)
    budget = min(len(stories_of(rows).values) for rows in (world.train, world.test)) // 2
    assert budget >= measured(many)["text_tokens"] == measured(samples)["text_tokens"] > budget - 80  # whole stories
    for real in (measured(world.test), measured(world.test.take(np.arange(10)))):  # too few: the floor is cut as short
        assert all(real[name] == real[f"{name}_real"] for name in real if f"{name}_real" in real)
    copies = measured(world.train)
    assert copies["copied_runs"] == 1 > copies["copied_runs_real"]
    one = measured(world.train.take(np.zeros(60, dtype=np.int64)))
    assert one["self_bleu"] == pytest.approx(1)
    assert one["rare_recall"] < 0.5 * one["rare_recall_real"]
    assert one["near_duplicates"] == pytest.approx(1, abs=0.05)
    with pytest.raises(StudyError, match="the policy samples none"):
        measured(None)


def test_loss_on_earlier_rows_is_the_models_loss_on_them(model, world, samples):
    earlier = [samples.take(np.arange(10)), world.test]
    metric = EarlierRows(rows=8, generations=3)
    values = metric.measure(model, world=world, samples=samples, seed=Seed(0), history=earlier)
    assert set(values) == {"loss_on_own", "loss_on_0", "loss_on_1", "loss_on_2"} == {q.name for q in metric.quantities}
    first = stories_of(world.test.take(np.arange(8)))
    assert values["loss_on_2"] == pytest.approx(-model.log_prob(first).sum() / len(first.values))
    assert values["loss_on_own"] == values["loss_on_1"]


def test_near_copies_of_earlier_generations_are_counted_at_a_fixed_number_of_tokens(model, world, samples):
    metric = NearCopies(rows=20, generations=3)

    def measured(rows, *history):
        return metric.measure(model, world=world, samples=rows, seed=Seed(0), history=list(history))

    values = measured(samples, world.test, samples, samples)
    assert set(values) == {q.name for q in metric.quantities} == {f"near_copies_{which}" for which in (0, 1, 2, "real")}
    assert values["near_copies_2"] == 1 > values["near_copies_0"]
    assert measured(world.test)["near_copies_0"] == values["near_copies_real"]
    assert measured(samples, world.test)["near_copies_1"] == values["near_copies_1"]
    assert measured(samples, Rows.concatenate([world.test] * 2)) == measured(samples, world.test)
    with pytest.raises(StudyError, match="the policy samples none"):
        measured(None)


def test_learning_curves_fall_and_change_nothing(weighted, world, small, tmp_path):
    plain, noted = Llama(**small, epochs=2), Llama(**small, epochs=2, curve=4)
    one, other = (learner.fit(weighted(1.0), world=world, seed=Seed(0)) for learner in (plain, noted))
    assert all(torch.equal(a, b) for a, b in zip(one.net.parameters(), other.net.parameters(), strict=True))
    other.save(tmp_path)
    values = LearningCurve(points=4).measure(noted.load(tmp_path), world=world, samples=None, seed=Seed(0))
    losses = [values[f"curve_{n}"] for n in range(1, 5)]
    assert losses == sorted(losses, reverse=True)
    first = stories_of(world.test.take(np.arange(min(200, len(world.test)))))
    assert losses[-1] == pytest.approx(float(-one.log_prob(first).sum() / len(first.values)))
    with pytest.raises(StudyError, match="asks for 8 points, and the learner notes 4"):
        LearningCurve().measure(other, world=world, samples=None, seed=Seed(0))
    case = {"source": StoryGrammar(), "learner": noted, "sampler": Ancestral()}
    Case(**case, metrics=(LearningCurve(points=4),)).check()
    with pytest.raises(StudyError, match="asks for 8 points"):  # before anything is fitted
        Case(**case, metrics=(LearningCurve(),)).check()


@dataclass(frozen=True, kw_only=True)
class Lookback:
    """The mean label of the first rows of every earlier generation: a metric with a history, for the cheap toy family."""

    history_rows: int = 4
    name: ClassVar[str] = "lookback"
    needs: ClassVar[frozenset[str]] = frozenset({"samples", "history"})
    quantities: ClassVar[tuple[Quantity, ...]] = tuple(Quantity(name=f"mean_{g}") for g in range(1, 6))

    def measure(self, model, *, world, samples, seed, history):
        assert all(len(rows) == 4 for rows in history)
        return {f"mean_{g}": float(rows["y"].mean()) for g, rows in enumerate(history, start=1)}


def test_a_metric_may_look_back_also_where_rows_were_dropped(tmp_path):
    study = kept_study(seeds=(0,), generations=4, names=("replace",), metrics=(Lookback(),))
    results = run(study, workspace=tmp_path / "w")
    memory = Memory()
    turns = study.arms[0].turns
    expected = [float(memory.realise(turn.sampled.step)["y"][:4].mean()) for turn in turns]
    for generation in range(1, 5):
        for earlier in range(1, generation):
            value = results.lineages("toy", "replace", f"mean_{earlier}").at(generation)[0]
            assert value == expected[earlier - 1]
    trimmed = run(replace(study, rows="needed"), workspace=tmp_path / "v")
    assert trimmed.scores.equals(results.scores)
    assert turns[2].scores[0].digest != turns[1].scores[0].digest
    assert len(Workspace(tmp_path / "v").records) == len(Workspace(tmp_path / "w").records)

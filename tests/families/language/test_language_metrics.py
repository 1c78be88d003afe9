"""Metrics report what they define, at a fixed sample size, and refuse where they cannot."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from refeed.core.errors import StudyError
from refeed.core.rows import Ragged, Rows
from refeed.core.seeds import Seed
from refeed.families.language import FAMILY
from refeed.families.language.metrics import CrossEntropy, GrammarCheck, SampleAudit
from refeed.families.language.source import StoryGrammar, Text, stories_of
from refeed.families.language.statistics import distinct, effective_support


class Oracle:
    """The true distribution as if it were a model."""

    context = 80

    def __init__(self, grammar):
        self.log_prob = grammar.log_prob


def measured(metric, model, world, samples=None):
    return metric.measure(model, world=world, samples=samples, seed=Seed(0))


@pytest.mark.parametrize("metric", [CrossEntropy(), GrammarCheck(), SampleAudit()])
def test_every_quantity_is_declared_finite_and_repeatable(metric, model, world, samples):
    values = measured(metric, model, world, samples)
    assert list(values) == [quantity.name for quantity in metric.quantities]
    assert all(type(value) is float and math.isfinite(value) for value in values.values())
    assert measured(metric, model, world, samples) == values


def test_cross_entropy_in_its_units_agrees(model, world):
    values = measured(CrossEntropy(), model, world)
    stories = stories_of(world.test)
    nats = values["cross_entropy_story"] * len(stories)
    assert values["cross_entropy"] == pytest.approx(nats / len(stories.values))
    num_bytes = sum(len(world.tokenizer.decode(story).encode()) for story in stories)
    assert values["cross_entropy_byte"] == pytest.approx(nats / num_bytes)
    difference = values["cross_entropy"] - values["source_cross_entropy"]
    assert values["kl"] == pytest.approx(difference * len(stories.values) / len(stories))
    assert values["kl"] > 4 * values["kl_standard_error"] > 0


def test_the_true_distribution_has_no_excess(world):
    values = measured(CrossEntropy(), Oracle(world.grammar), world)
    assert values["kl"] == values["kl_standard_error"] == 0
    assert values["cross_entropy"] == values["source_cross_entropy"]


def test_without_a_grammar_there_is_no_floor_and_no_grammar_check(model, world, samples):
    wordless = replace(world, grammar=None)
    values = measured(CrossEntropy(), model, wordless)
    assert "kl" not in values
    assert "source_cross_entropy" not in values
    with pytest.raises(StudyError, match="knows its grammar"):
        measured(GrammarCheck(), model, wordless, samples)
    assert "grammar" in StoryGrammar.knows
    assert "grammar" not in Text.knows


@pytest.mark.parametrize("metric", [GrammarCheck(), SampleAudit()])
@pytest.mark.parametrize("samples", [None, Rows(tokens=Ragged.of([], np.uint16))])
def test_metrics_of_samples_refuse_to_judge_none(metric, samples, model, world):
    with pytest.raises(StudyError, match="samples none"):
        measured(metric, model, world, samples)


@pytest.mark.parametrize("metric", [GrammarCheck(), SampleAudit()])
def test_only_as_many_samples_as_real_rows_are_judged(metric, model, world, samples):
    more = Rows.concatenate([samples, world.test, world.test])
    assert measured(metric, model, world, more) == measured(metric, model, world, samples)


def test_the_real_stories_as_samples_are_as_good_as_real(model, world):
    grammar, audit = (measured(metric, model, world, world.train) for metric in (GrammarCheck(), SampleAudit()))
    assert grammar["grammatical"] == 1.0
    assert grammar["tail_recall"] == grammar["tail_recall_real"]
    assert grammar["effective_words"] == grammar["effective_words_real"]
    assert audit["ended"] == 1.0
    assert audit["duplicates_above_chance"] == 0.0
    assert audit["distinct_3"] == audit["distinct_3_real"]
    assert audit["mean_tokens"] == pytest.approx(world.grammar.mean_tokens, rel=0.1)


def test_one_story_over_and_over_is_seen(model, world):
    copies = world.train.take(np.zeros(150, dtype=int))
    audit = measured(SampleAudit(), model, world, copies)
    assert audit["unique"] == pytest.approx(1 / 150)
    assert audit["duplicates_above_chance"] == pytest.approx(1 - 1 / 150, abs=0.01)
    assert audit["distinct_3"] < 0.1 * audit["distinct_3_real"]
    assert measured(GrammarCheck(), model, world, copies)["tail_recall"] < 0.2


def test_effective_support_and_distinct_by_hand():
    assert effective_support(np.array([5, 5, 0, 5, 5])) == pytest.approx(4)
    assert effective_support(np.array([0, 9])) == pytest.approx(1)
    stories = Ragged.of([[1, 2, 3, 4], [1, 2, 3], [9]], np.uint16)
    assert distinct(stories, order=3, budget=100) == pytest.approx(2 / 3)
    assert distinct(stories, order=3, budget=4) == 1.0
    assert math.isnan(distinct(stories, order=3, budget=2))


def test_the_family_names_what_exists():
    from importlib import import_module

    for table in (FAMILY.sources, FAMILY.learners, FAMILY.samplers, FAMILY.metrics, {"": FAMILY.exhibit}):
        for target in table.values():
            module, _, name = target.partition(":")
            assert hasattr(import_module(module), name)
    for name, target in FAMILY.metrics.items():
        module, _, kind = target.partition(":")
        assert getattr(import_module(module), kind).name == name

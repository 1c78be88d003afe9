"""The grammar's probabilities are exact: by enumeration, by frequency, and by its own entropy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from refeed.core.errors import StudyError
from refeed.core.rows import Ragged
from refeed.core.seeds import Seed
from refeed.families.language import lexicon
from refeed.families.language.grammar import END_TOKEN, TOKEN, Grammar, grammar
from refeed.families.language.source import StoryGrammar
from refeed.families.language.vocabulary import WordTokenizer

GRAMMAR = grammar(zipf=1.0, sentences=8)
WORDS = WordTokenizer(lexicon.WORDS)


def scored(*texts: str) -> list[float]:
    return GRAMMAR.log_prob(WORDS.encode(texts)).tolist()


STORY = "once there was a big girl named mia . she had a red dog and a small kite . her dog ran to the park . she held her kite ."


def test_probabilities_of_all_stories_of_a_small_grammar_sum_to_one(monkeypatch):
    small = {"girl name": ["lily"], "boy name": ["tom", "ben"], "pet": ["dog", "cat"], "thing": ["ball"]}
    small |= {"adjective": ["little", "big"], "move": ["went"], "place": ["park", "house"], "use": ["took"]}
    small |= {"eat": ["ate"], "food": ["bread"], "meet": ["saw"], "animal": ["bear"], "feeling": ["glad", "sad"]}
    monkeypatch.setattr("refeed.families.language.grammar.CLASSES", small)
    tiny = Grammar(zipf=0.7, sentences=2)

    def expand(*phrases):
        return [" ".join(words) for words in itertools.product(*phrases)]

    texts = []
    for names, pronoun, possessive in ((["lily"], "she", "her"), (["tom", "ben"], "he", "his")):
        kind = "girl" if pronoun == "she" else "boy"
        for name, pet in itertools.product(names, small["pet"]):
            adjectives = small["adjective"]
            opening = expand(
                ["once there was a"], adjectives, [f"{kind} named {name} . {pronoun} had a"], adjectives, [f"{pet} and a"],
                adjectives, ["ball ."],
            )  # fmt: skip
            subject = [pronoun, name, f"{possessive} {pet}"]
            body = [
                *expand(subject, ["went to the"], small["place"], ["."]),
                *expand(subject, [f"took {possessive} ball ."]),
                *expand(subject, ["ate some bread ."]),
                *expand(subject, ["saw a"], adjectives, ["bear ."]),
                *expand(subject, ["felt"], small["feeling"], ["."]),
            ]
            texts += expand(opening, body) + expand(opening, body, body)
    p = np.exp(tiny.log_prob(WORDS.encode(texts)))
    assert len(set(texts)) == len(texts)
    assert (p > 0).all()
    assert p.sum() == pytest.approx(1.0, abs=1e-9)
    assert tiny.entropy == pytest.approx(-(p * np.log(p)).sum(), rel=1e-9)
    lengths = WORDS.encode(texts).lengths
    assert tiny.mean_tokens == pytest.approx((p * lengths).sum(), rel=1e-9)


def test_every_sampled_story_is_grammatical_and_of_20_to_80_tokens():
    stories = GRAMMAR.sample(5000, np.random.default_rng(0))
    assert np.isfinite(GRAMMAR.log_prob(stories)).all()
    assert stories.lengths.min() >= 20
    assert stories.lengths.max() <= 80
    assert (stories.values[stories.offsets[1:] - 1] == END_TOKEN).all()


def test_entropy_and_length_are_the_means_over_stories():
    """Two z-tests at |z| < 4: one false alarm in 8,000."""
    stories = GRAMMAR.sample(40_000, np.random.default_rng(1))
    for sample, mean in ((-GRAMMAR.log_prob(stories), GRAMMAR.entropy), (stories.lengths, GRAMMAR.mean_tokens)):
        assert abs(sample.mean() - mean) < 4 * sample.std() / np.sqrt(len(stories))


def test_words_occur_as_often_as_expected():
    """Chi-square of 130 word classes' counts beyond registers, one false alarm in about 30,000 (z = 4)."""
    stories = GRAMMAR.sample(20_000, np.random.default_rng(2))
    words = [TOKEN[w] for name in ("adjective", "place", "food", "animal", "feeling") for w in lexicon.CLASSES[name]]
    observed = np.bincount(stories.values, minlength=WORDS.size)[words]
    expected = GRAMMAR.expected_counts()[words] * len(stories)
    # counts within a story are nearly Poisson; the slack of the length distribution is within z = 4
    chi2 = ((observed - expected) ** 2 / expected).sum()
    assert abs(chi2 - len(words)) < 4 * np.sqrt(2 * len(words)) * 1.2


def test_agreement_is_part_of_the_grammar():
    good, *bad = scored(
        STORY,
        STORY.replace("she held", "he held"),
        STORY.replace("held her", "held his"),
        STORY.replace("her dog ran", "her cat ran"),
        STORY.replace("held her kite", "held her ball"),
        STORY.replace("girl named mia", "girl named tom"),
        STORY.replace(" kite .", " kite"),
        STORY + " mia",
        STORY.replace("she held", "lily held"),
    )
    assert np.isfinite(good)
    assert bad == [-np.inf] * len(bad)


def test_a_story_that_is_cut_or_goes_on_after_its_end_has_no_probability():
    whole = WORDS.encode([STORY])[0]
    cut, more = whole[:-1], [*whole, END_TOKEN]
    assert GRAMMAR.log_prob(Ragged.of([cut, more, [], [65535]], np.uint16)).tolist() == [-np.inf] * 4


def test_corrupting_one_token_of_a_story_is_noticed():
    """Each token is replaced by one of another class; what stays grammatical would be a defect."""
    rng = np.random.default_rng(3)
    stories = GRAMMAR.sample(200, rng)
    class_of = {TOKEN[w]: name for name, words in lexicon.CLASSES.items() for w in words}
    corrupted = []
    for story in stories:
        place = rng.integers(len(story))
        others = [t for t in range(WORDS.size) if t != story[place] and class_of.get(t, t) != class_of.get(int(story[place]), -1)]
        if class_of.get(int(story[place]), "") in ("girl name", "boy name"):
            others = [TOKEN["."]]
        swap = story.copy()
        swap[place] = rng.choice(
            [t for t in others if t in class_of or t == TOKEN["."]] if story[place] in class_of else [TOKEN["kite"]]
        )
        corrupted.append(swap)
    bad = GRAMMAR.log_prob(Ragged.of(corrupted, np.uint16))
    assert np.isinf(bad).all()


def test_each_lineage_draws_its_own_rows_again_and_again_the_same():
    source = StoryGrammar(rows=20, test_rows=10)
    first, again, other = (source.draw(seed=Seed(s)) for s in (0, 0, 1))
    assert len(first.train) == source.num_rows == 20
    assert (first.train["tokens"].values == again.train["tokens"].values).all()
    assert first.train["tokens"].values.tolist() != other.train["tokens"].values.tolist()
    assert first.train["tokens"].values.dtype == np.uint16


def test_zipf_shapes_word_choice():
    flat, steep = grammar(zipf=0.0, sentences=8), grammar(zipf=2.0, sentences=8)
    assert steep.entropy < GRAMMAR.entropy < flat.entropy
    assert len(GRAMMAR.rare_words(0.05)) < len(steep.rare_words(0.05))


def test_no_word_belongs_to_two_classes():
    assert len(set(lexicon.WORDS)) == len(lexicon.WORDS)


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"test_rows": 0}, {"sentences": 0}, {"zipf": -1.0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(StudyError, match=next(iter(wrong))):
        StoryGrammar(**wrong)

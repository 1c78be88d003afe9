"""Filters and corruptions: what comes between sampling and keeping, in the loop and row by row."""

import numpy as np
import pytest

from refeed import policies
from refeed.core.errors import Stopped, StudyError
from refeed.core.loop import turns
from refeed.core.memory import Memory
from refeed.core.rows import Ragged, Rows
from refeed.core.seeds import Seed
from refeed.core.steps import rows_of
from refeed.policies.corruptions import DropModes, Noise, Shuffle
from refeed.policies.filters import BestOf, Distinct, Length, Resample, Threshold, TopFraction
from refeed.policies.wrappers import Wrapped, accumulate_matched_steps


def apply(how, rows, num_rows, *, scores=None, generation=1, seed=0):
    assert how.candidates(num_rows) <= len(rows)
    return how.apply(rows, num_rows, score_of=lambda name: scores, generation=generation, seed=Seed(seed))


NUMBERS = Rows(y=np.arange(12.0))
SCORES = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8], dtype=float)


def test_top_fraction_keeps_the_best_in_their_order():
    made = apply(TopFraction(score="s", fraction=0.25), NUMBERS, 3, scores=SCORES)
    assert made["y"].tolist() == [5, 7, 11]
    assert made["refeed_row"].tolist() == [5, 7, 11]
    assert made["refeed_score"].tolist() == [9, 6, 8]


def test_threshold_takes_the_first_that_pass_or_stops_the_lineage():
    made = apply(Threshold(score="s", least=5, oversample=4), NUMBERS, 3, scores=SCORES)
    assert made["y"].tolist() == [4, 5, 7]
    with pytest.raises(Stopped, match=r"short sample: 2 of 12 sampled rows score 8 or more by 's', 3 are needed"):
        apply(Threshold(score="s", least=8), NUMBERS, 3, scores=SCORES)


def test_best_of_takes_one_of_each_group():
    assert apply(BestOf(score="s", of=4), NUMBERS, 3, scores=SCORES)["y"].tolist() == [2, 5, 11]


def test_resampling_prefers_high_scores_and_repeats_no_row_too_often():
    made = apply(Resample(score="s", power=10, most=3), NUMBERS, 12, scores=SCORES)
    counts = np.bincount(made["refeed_row"], minlength=12)
    assert counts.max() <= 3
    assert counts[[5, 7, 11]].sum() > counts[[1, 3, 6]].sum()
    even = apply(Resample(score="s", power=0, most=1), NUMBERS, 12, scores=SCORES)
    assert sorted(even["refeed_row"]) == list(range(12))


def test_distinct_drops_repeats_and_near_repeats():
    stories = [[1, 2, 3, 4, 5, 6, 7, 8], [9, 9], [1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6, 7, 99], [5, 6]]
    rows = Rows(tokens=Ragged.of(stories, np.uint16))
    assert apply(Distinct(oversample=1.2), rows, 4)["refeed_row"].tolist() == [0, 1, 3, 4]
    assert apply(Distinct(oversample=1.5, overlap=0.5, run=3), rows, 3)["refeed_row"].tolist() == [0, 1, 4]
    with pytest.raises(Stopped, match="4 of 5 sampled rows resemble no earlier one, 5 are needed"):
        Distinct().apply(rows, 5, score_of=None, generation=1, seed=Seed(0))


def test_length_looks_at_sequences():
    rows = Rows(tokens=Ragged.of([[1], [1, 2], [1, 2, 3], [1, 2]], np.uint16))
    assert apply(Length(least=2, most=2), rows, 2)["refeed_row"].tolist() == [1, 3]
    with pytest.raises(StudyError, match="only sequences do"):
        apply(Length(), NUMBERS, 2)


@pytest.mark.parametrize(("generation", "expected"), [(1, 0.1), (3, 0.4)])
def test_noise_grows_with_the_generation(generation, expected):
    rows = Rows(y=Seed(1).generator().standard_normal(20_000))
    made = apply(Noise(strength=0.1, growth=2.0), rows, 20_000, generation=generation)
    assert (made["y"] - rows["y"]).std() == pytest.approx(expected, rel=0.05)


def test_noise_on_tokens_replaces_a_fraction_and_keeps_the_end():
    stories = [[*list(range(1, 51)), 0]] * 200
    rows = Rows(tokens=Ragged.of(stories, np.uint16))
    made = apply(Noise(strength=0.2), rows, 200)["tokens"]
    changed = (made.values != rows["tokens"].values).reshape(200, 51)
    assert not changed[:, -1].any()
    assert changed[:, :-1].mean() == pytest.approx(0.2 * 50 / 51, rel=0.1)  # a drawn token may be the one it replaces


def test_noise_on_pixels_stays_in_range():
    rows = Rows(image=Seed(1).generator().integers(0, 256, (50, 8, 8, 1)).astype(np.uint8))
    made = apply(Noise(strength=1.0), rows, 50)["image"]
    assert made.dtype == np.uint8
    assert made.shape == (50, 8, 8, 1)
    assert (made != rows["image"]).mean() > 0.5


def test_shuffling_keeps_the_words_of_a_story_and_its_end():
    stories = [[*range(1, 21), 0] for _ in range(300)]
    rows = Rows(tokens=Ragged.of(stories, np.uint16))
    made = apply(Shuffle(strength=0.3), rows, 300)["tokens"]
    assert all(sorted(story) == sorted(stories[0]) and story[-1] == 0 for story in made)
    assert sum(story.tolist() != stories[0] for story in made) / 300 == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 300))


def test_dropped_modes_are_the_lowest_and_grow():
    rows = Rows(y=np.arange(1000.0))
    for generation, least in ((1, 100), (3, 400)):
        made = apply(DropModes(score="s", strength=0.1, growth=2.0), rows, 100, scores=np.arange(1000.0), generation=generation)
        assert made["y"].min() >= least
        assert len(made) == 100


def run(lineage, policy, generations=4, **options):
    memory, line = Memory(), lineage(policy, **options)
    seen = list(turns(line, generations))
    return seen, memory, [memory.realise(turn.scores[0])["excess_risk"] for turn in seen]


def test_in_the_loop_the_amount_is_kept_and_candidates_are_sampled(lineage):
    alterations = (TopFraction(score="closeness", fraction=0.5), Noise(strength=0.0))
    seen, memory, _ = run(lineage, Wrapped(policy=policies.accumulate(), alterations=alterations))
    assert [turn.sampled.num_rows for turn in seen] == [60] * 4
    assert [turn.fresh.num_rows for turn in seen] == [30] * 4
    assert seen[-1].train.rows_by_generation() == {0: 30, 1: 30, 2: 30, 3: 30}
    kept, written = rows_of(seen[0].fresh, memory.realise), rows_of(seen[0].sampled, memory.realise)
    assert "refeed_row" in kept.names
    assert seen[0].fresh.origin == seen[0].sampled.origin
    assert len(written) == 60


def test_a_verifier_that_knows_the_truth_helps_and_noise_hurts(lineage):
    """Mean excess risk after five generations of replace over 60 lineages: orders of magnitude of effect, not luck."""

    def mean(*alterations):
        policy = Wrapped(policy=policies.replace(), alterations=alterations)
        return np.mean([run(lineage, policy, 5, seed=seed)[2][-1] for seed in range(60)])

    plain = mean()
    assert mean(BestOf(score="closeness", of=8)) < plain / 2
    assert mean(Noise(strength=0.5, growth=2.0, column="y")) > 2 * plain


def test_an_alteration_without_effect_changes_nothing(lineage):
    plain = run(lineage, policies.accumulate())[2]
    assert run(lineage, Wrapped(policy=policies.accumulate(), alterations=(Noise(strength=0.0),)))[2] == plain


def test_a_filter_that_starves_ends_the_lineage_with_its_name(lineage):
    policy = Wrapped(policy=policies.replace(), alterations=(Threshold(score="closeness", least=1.0),))
    with pytest.raises(Stopped, match="short sample: 0 of 120 sampled rows"):
        run(lineage, policy)


def test_an_unknown_score_names_those_there_are(lineage):
    with pytest.raises(StudyError, match="knows no score 'beauty'"):
        run(lineage, Wrapped(policy=policies.replace(), alterations=(TopFraction(score="beauty"),)))


def test_matched_steps_mark_every_fit(lineage):
    seen = list(turns(lineage(accumulate_matched_steps()), 3))
    assert [turn.model.visits for turn in seen] == [30, 30, 30]
    plain = list(turns(lineage(policies.accumulate()), 3))
    assert seen[0].model.digest == plain[0].model.digest  # generation 1 is the same model
    assert seen[2].model.digest != plain[2].model.digest


def test_alterations_and_compositions_in_a_study_file():
    from refeed.studies.files import parse

    text = """
family = "regression"
controls = ["real-only", "matched-size"]
[[policies]]
kind = "replace"
name = "verified"
alter = [{ kind = "top-fraction", score = "closeness", fraction = 0.25 }, { kind = "noise", strength = 0.5, column = "y" }]
[[policies]]
kind = "composed"
sample = { kind = "linear", step = 0.5 }
keep = "reservoir"
train = { kind = "real-share-floor", share = 0.5 }
"""
    study = parse(text, name="mine")
    assert list(study.policies) == ["verified", MADE, "real-only", "matched-size"]
    assert study.policies["verified"].alterations == (
        TopFraction(score="closeness", fraction=0.25),
        Noise(strength=0.5, column="y"),
    )
    with pytest.raises(StudyError, match="alteration 'top-fracton' is not known; did you mean 'top-fraction'"):
        parse(text.replace('"top-fraction"', '"top-fracton"'), name="mine")
    with pytest.raises(StudyError, match=r"needs the option 'score'"):
        parse(text.replace(' score = "closeness",', ""), name="mine")


MADE = "composed (sample linear, keep reservoir, train real-share-floor)"

"""The trained detector, and resampling by it."""

from dataclasses import replace

import numpy as np
import pytest

from refeed import policies
from refeed.core.detector import log_odds_real
from refeed.core.loop import turns
from refeed.core.memory import Memory
from refeed.core.rows import Ragged, Rows
from refeed.core.seeds import Seed
from refeed.core.steps import rows_of
from refeed.policies.filters import Detector
from refeed.policies.wrappers import Wrapped


def stories(num_rows, weights, seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(20, 60, size=num_rows)
    return Rows(
        tokens=Ragged.of(
            [rng.choice(len(weights), size=n, p=weights / weights.sum()).astype(np.uint16) for n in lengths], np.uint16
        )
    )


def numbers(num_rows, seed, *, shift=0.0, spread=1.0):
    return Rows(x=shift + spread * np.random.default_rng(seed).standard_normal((num_rows, 3)))


def images(num_rows, seed, *, shift):
    levels = np.random.default_rng(seed).integers(0, 200, size=(num_rows, 16, 16, 3)) + shift
    return Rows(image=levels.astype(np.uint8))


FLAT, STEEP = np.ones(50), 1 / np.arange(1, 51)
PAIRS = {
    "numbers by their mean": (numbers(600, 0), numbers(600, 1), numbers(600, 2, shift=1.0)),
    "numbers by their spread": (numbers(600, 0), numbers(600, 1), numbers(600, 2, spread=0.4)),
    "sequences by their words": (stories(400, STEEP, 0), stories(400, STEEP, 1), stories(400, FLAT, 2)),
    "images by their brightness": (images(300, 0, shift=0), images(300, 1, shift=0), images(300, 2, shift=20)),
}


@pytest.mark.parametrize("what", PAIRS)
def test_it_tells_synthetic_rows_from_real_ones_and_only_these(what):
    real, alike, other = PAIRS[what]
    half = len(real) // 2
    mixed = Rows.concatenate([alike.take(np.arange(half)), other.take(np.arange(half))])  # half of the candidates are as real ones
    scores = log_odds_real(real, mixed)
    assert (scores[:half, None] > scores[None, half:]).mean() > 0.75  # the area under the ROC curve
    blind = log_odds_real(real, alike)  # nothing to tell: cross-fitted log odds scatter about 0
    assert abs(blind.mean()) < 0.5


def test_scores_are_a_function_of_the_rows():
    real, _, other = PAIRS["sequences by their words"]
    assert np.array_equal(log_odds_real(real, other), log_odds_real(real, other))


def test_resampling_by_the_detector_moves_samples_towards_the_real_rows():
    made = Detector().apply(
        SAMPLED, 500, score_of=lambda name: log_odds_real(numbers(1000, 0), SAMPLED), generation=1, seed=Seed(0)
    )
    assert len(made) == 500
    assert np.bincount(made["refeed_row"], minlength=500).max() <= 3
    assert abs(made["x"].mean()) < 0.6 * abs(SAMPLED["x"].mean())


SAMPLED = numbers(500, 3, shift=0.7)


def test_small_probabilities_do_not_underflow():
    scores = np.linspace(-4000.0, -3000.0, 50)
    made = Detector(power=10, most=1).apply(SAMPLED.take(np.arange(50)), 5, score_of=lambda _: scores, generation=1, seed=Seed(0))
    assert sorted(made["refeed_row"]) == [45, 46, 47, 48, 49]


def test_every_family_knows_it(regression_study):
    lineage = regression_study(names=("replace",)).arms[0].lineage
    lineage = replace(lineage, policy=Wrapped(policy=policies.replace(), alterations=(Detector(),)))
    memory = Memory()
    for turn in turns(lineage, 3):
        rows = rows_of(turn.fresh, memory.realise)
        assert np.isfinite(rows["refeed_score"]).all()
        assert not np.array_equal(rows["y"], rows_of(turn.sampled, memory.realise)["y"])

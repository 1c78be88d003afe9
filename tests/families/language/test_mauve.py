"""MAUVE: its curve by hand and by integration, features as the model gives them, and what it says of good and bad samples."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from refeed.core.errors import SourceError, StudyError
from refeed.core.recipes import digest
from refeed.core.rows import Ragged, Rows
from refeed.core.seeds import Seed
from refeed.families.language import mauve as module
from refeed.families.language.mauve import Mauve, area, features, k_means, mauve
from refeed.families.language.sampler import Ancestral
from refeed.families.language.source import StoryGrammar, stories_of


@pytest.fixture(scope="module")
def judge(model, tmp_path_factory):
    """A folder as transformers writes it: the model that looks."""
    folder = tmp_path_factory.mktemp("judge")
    model.save(folder)
    return str(folder)


def test_the_area_is_one_for_equal_and_nothing_for_disjoint_histograms():
    p = np.array([0.5, 0.3, 0.2])
    assert area(p, p) == pytest.approx(1, abs=1e-9)
    assert area(np.array([1.0, 0.0]), np.array([0.0, 1.0])) < 0.05
    assert area(p, p[::-1]) == pytest.approx(area(p[::-1], p), abs=1e-9)
    assert area(p, np.array([0.4, 0.35, 0.25])) > area(p, np.array([0.1, 0.2, 0.7]))


def test_the_area_is_that_of_the_curve_of_its_definition(monkeypatch):
    p, q = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.2, 0.6])
    w = np.linspace(1e-6, 1 - 1e-6, 20_001)
    x = [np.exp(-5 * sum(b * np.log(b / (v * a + (1 - v) * b)) for a, b in zip(p, q, strict=True))) for v in w]
    y = [np.exp(-5 * sum(a * np.log(a / (v * a + (1 - v) * b)) for a, b in zip(p, q, strict=True))) for v in w]
    exact = -sum((x[i + 1] - x[i]) * (y[i + 1] + y[i]) / 2 for i in range(len(w) - 1))
    exact += (1 - x[0]) * y[0] / 2 + x[-1] * (y[-1] + 1) / 2  # the straight ends at (1, 0) and (0, 1)
    assert area(p, q) == pytest.approx(exact, abs=0.01)  # 25 points
    monkeypatch.setattr(module, "WEIGHTS", w)
    assert area(p, q) == pytest.approx(exact, rel=1e-6)


def test_clusters_that_lie_apart_are_found():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(centre, 0.1, (50, 3)) for centre in (-5, 0, 5)])
    label = k_means(points, 3, rng=np.random.default_rng(1))
    assert sorted(np.bincount(label)) == [50, 50, 50]
    assert all(len(set(part)) == 1 for part in np.split(label, 3))
    assert np.array_equal(label, k_means(points, 3, rng=np.random.default_rng(1)))
    assert len(set(k_means(np.ones((9, 2)), 3, rng=rng))) == 1  # nothing to tell apart


def test_far_apart_features_score_low_and_equal_ones_high():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 400, 5)) + np.array([3.0, 0, 0, 0, 0])
    assert mauve(a, b, seed=Seed(0)) > 0.8
    assert mauve(a, -b, seed=Seed(0)) < 0.2
    assert mauve(a, b, seed=Seed(0)) == mauve(a, b, seed=Seed(0))


def test_features_are_the_last_hidden_states_of_each_text_alone(judge, model, world):
    texts = (*(world.tokenizer.decode(stories_of(world.test)[n]) for n in range(5)), "")
    found = features(judge, texts)
    for text, row in zip(texts, found, strict=True):
        ids = world.tokenizer.encode([text])[0][:-1].tolist()[: model.context] or [world.tokenizer.end]
        with torch.no_grad():
            hidden = model.net(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[-1]
        assert row == pytest.approx(hidden[0, -1].numpy(), abs=1e-5)


def test_it_falls_from_real_stories_to_samples_to_repeats(judge, model, world):
    metric = Mauve(features=judge, rows=60)
    good = metric.measure(model, world=world, samples=Ancestral().sample(model, 60, world=world, seed=Seed(3)), seed=Seed(0))
    assert good["mauve_rows"] == 60
    again = metric.measure(model, world=world, samples=Rows(tokens=stories_of(world.train)), seed=Seed(0))
    assert again["mauve"] == again["mauve_real"] == good["mauve_real"]
    once = Rows(tokens=Ragged.of([stories_of(world.test)[0]] * 60, np.uint16))
    bad = metric.measure(model, world=world, samples=once, seed=Seed(0))
    assert bad["mauve"] < 0.25 < good["mauve"] <= 1


def test_what_it_cannot_look_at_is_said(judge, model, world, tmp_path):
    with pytest.raises(StudyError, match="needs a language model whose features"):
        Mauve()
    with pytest.raises(StudyError, match="rows of at least 20"):
        Mauve(features=judge, rows=5)
    with pytest.raises(SourceError, match="neither a folder here nor a model"):
        digest(Mauve(features="nowhere/at-all"))
    few = StoryGrammar(rows=30, test_rows=8).draw(seed=Seed(0))
    with pytest.raises(StudyError, match="20 stories of each kind, and there are 8"):
        Mauve(features=judge).measure(model, world=few, samples=few.train, seed=Seed(0))
    copied = tmp_path / "copied"
    shutil.copytree(judge, copied)
    assert digest(Mauve(features=str(copied))) == digest(Mauve(features=judge))  # content, not place

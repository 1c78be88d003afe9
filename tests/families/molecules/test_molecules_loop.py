"""The loop on molecules, from study to results: what each generation is given, what ends a lineage, and equal bits."""

from __future__ import annotations

import numpy as np
import pytest

from refeed import policies
from refeed.core.seeds import Seed
from refeed.families.molecules.learner import GeoDiff
from refeed.families.molecules.metrics import Coverage, DenoisingLoss, Geometry
from refeed.families.molecules.sampler import Strided
from refeed.families.molecules.worlds import positions_of
from refeed.studies import Case, Study, run
from refeed.workspace import Workspace


def study_of(source, *, sampler=None, generations=2, steps=15, names=("replace", "accumulate")):
    case = Case(
        family="molecules",
        source=source,
        learner=GeoDiff(hidden=8, interactions=1, convolutions=1, steps=steps),
        sampler=sampler or Strided(steps=8),
        metrics=(DenoisingLoss(strata=2), Geometry(), Coverage()),
    )
    presets = {"replace": policies.replace(), "accumulate": policies.accumulate()}
    return Study(cases=(case,), policies={name: presets[name] for name in names}, seeds=(0,), generations=generations)


@pytest.fixture(scope="module")
def finished(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return study_of(source), run(study_of(source), workspace=folder), Workspace(folder)


def test_every_generation_samples_the_real_graphs_anew(finished, world):
    study, results, store = finished
    assert set(results.outcomes["outcome"].to_pylist()) == {"completed"}
    for arm in study.arms:
        for turn in arm.turns:
            rows = store.realise(turn.sampled.step)
            assert np.array_equal(rows["molecule"], world.train["molecule"])
            assert not np.array_equal(positions_of(rows).values, positions_of(world.train).values)
    last = study.arms[1].turns[-1]
    assert last.train.num_rows == 32
    values = results.lineages("main", "replace", "local_loss").values
    assert values.shape == (1, 2)
    zero = results.lineages("main", "replace", "local_loss_zero").values
    assert zero[0, 0] == zero[0, 1]


def test_a_second_run_gives_equal_bits(finished, source):
    _, results, _ = finished
    again = run(study_of(source))
    assert again.scores.equals(results.scores)


def test_a_world_is_kept_and_read_back(finished, world):
    study, _, store = finished
    kept = store.realise(study.arms[0].lineage.draw)
    assert kept.molecules.smiles == world.molecules.smiles
    assert np.array_equal(positions_of(kept.test).values, positions_of(world.test).values)


def test_the_report_shows_molecules(finished, tmp_path):
    from refeed.report import write

    _, results, _ = finished
    results.save(tmp_path)
    page = write(tmp_path).read_text()
    assert page.count("data:image/svg+xml;base64,") > 40
    for text in ("The same molecules", "Bonds, torsions and coverage", "every fit: 15 steps", "dotted: local loss zero"):
        assert text in page, text
    assert {"main-local-loss.svg", "main-global-loss.svg", "main-total-loss.svg"} <= {
        path.name for path in (tmp_path / "figures").iterdir()
    }


def test_samples_that_are_not_finite_end_the_lineage_and_feed_nobody(source):
    results = run(study_of(source, sampler=Strided(steps=8, step_rate=1e38), names=("replace",)))
    (outcome,) = results.outcomes.to_pylist()
    assert outcome["outcome"] == "non-finite"
    assert outcome["generation"] == 0
    assert "16 of 16 conformers hold NaN or infinite positions, even when sampled again" in outcome["sentence"]
    assert set(results.scores["generation"].to_pylist()) <= {1}
    assert "bond_error" not in set(results.scores["quantity"].to_pylist())


def test_rows_that_were_made_again_still_join_real_ones(source, world, model):
    again = Strided(steps=4).sample(model, 16, world=world, seed=Seed(0))
    from molecules_toy import data_of

    from refeed.core.rows import Rows

    both = Rows.concatenate([world.train, again])
    assert set(both.names) == {"molecule", "positions"}
    GeoDiff(hidden=8, interactions=1, convolutions=1, steps=2).fit(data_of(source, world, rows=both), world=world, seed=Seed(0))

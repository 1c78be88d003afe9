"""Metrics of conformers: known values on made positions, and RMSD that knows symmetry."""

from __future__ import annotations

import numpy as np
import pytest
from molecules_toy import rotation

from refeed.core.errors import StudyError
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.families.molecules import chemistry, metrics
from refeed.families.molecules.graphs import Molecules
from refeed.families.molecules.metrics import AlignedLoss, Coverage, DenoisingLoss, Geometry
from refeed.families.molecules.worlds import positions_of, rows_of


def moved(world, change):
    """The real training rows with every conformer's positions changed."""
    return rows_of(world.train["molecule"], [change(x) for x in positions_of(world.train)])


def test_the_losses_are_those_of_the_model_and_their_sum(model, world):
    found = DenoisingLoss(strata=4).measure(model, world=world, samples=None, seed=Seed(0))
    local, far = model.losses(world.test, world, strata=4).mean(axis=0)
    assert (found["local_loss"], found["global_loss"]) == (local, far)
    assert found["total_loss"] == pytest.approx(local + far)
    assert found["local_loss"] < found["local_loss_zero"]
    assert found == DenoisingLoss(strata=4).measure(model, world=world, samples=None, seed=Seed(99))
    assert set(found) == {quantity.name for quantity in DenoisingLoss.quantities}


def test_strata_reach_over_all_levels(model, world):
    zero = model.losses(world.test, world, strata=10, zero=True)
    assert zero[0, 1] != zero[9, 1]
    by_level = zero.sum(axis=1)
    assert np.ptp(by_level) > 0.2 * by_level.mean()


def test_turned_and_renumbered_copies_are_found(world):
    """A ring looks the same after its atoms changed places: RMSD 0, though plain alignment says otherwise."""
    toluene = Molecules.of([chemistry.graph(chemistry.parse("Cc1ccccc1"), hydrogens=False)[0]], hydrogens=False)
    _, (x,) = chemistry.conformers(chemistry.parse("Cc1ccccc1"), 1, seed=1, hydrogens=False)
    swapped = x[[0, 1, 6, 5, 4, 3, 2]] @ rotation().astype(np.float32) + 4
    assert chemistry.rmsds(toluene, 0, [swapped], [x])[0, 0] < 1e-3
    mirrored = positions_of(world.train)[0] @ rotation(mirrored=True).astype(np.float32)
    number = int(world.train["molecule"][0])
    table = chemistry.rmsds(world.molecules, number, [mirrored], [positions_of(world.train)[0]])
    assert table[0, 0] > 0.1


def test_rmsd_is_that_of_heavy_atoms():
    whole = Molecules.of([chemistry.conformers(chemistry.parse("CCO"), 1, seed=1, hydrogens=True)[0]], hydrogens=True)
    _, (x,) = chemistry.conformers(chemistry.parse("CCO"), 1, seed=1, hydrogens=True)
    bent = x.copy()
    bent[3:] += np.random.default_rng(0).standard_normal(bent[3:].shape).astype(np.float32)
    assert chemistry.rmsds(whole, 0, [bent], [x])[0, 0] < 1e-3
    stretched = x.copy()
    stretched[2] = x[2] + (x[2] - x[1])
    assert chemistry.rmsds(whole, 0, [stretched], [x])[0, 0] > 0.2


def test_coverage_of_the_real_conformers_themselves_is_whole(model, world):
    found = Coverage().measure(model, world=world, samples=moved(world, lambda x: x @ rotation().astype(np.float32)), seed=Seed(0))
    assert found["cov_recall"] == found["cov_precision"] == 1
    assert found["mat_recall"] == pytest.approx(0, abs=1e-3)
    assert found["cov_recall_sweep"] == pytest.approx(1)
    assert 0 < found["mat_recall_real"] < 3
    assert set(found) == {quantity.name for quantity in Coverage.quantities}


def test_one_good_conformer_each_has_precision_without_recall(model, world):
    rows = world.train["molecule"]
    first = {int(n): positions_of(world.train)[int(np.flatnonzero(rows == n)[0])] for n in np.unique(rows)}
    copies = rows_of(rows, [first[int(n)] for n in rows])
    found = Coverage(threshold=1e-3).measure(model, world=world, samples=copies, seed=Seed(0))
    assert found["cov_precision"] == 1
    assert 0.5 <= found["cov_recall"] < 0.8
    assert found["mat_precision"] < 1e-3 < found["mat_recall"]


def test_coverage_is_a_mean_over_molecules():
    assert metrics.covered([np.array([0.1, 0.9]), np.array([0.2])], np.array([0.5, 1.0])).tolist() == [0.75, 1.0]


def test_geometry_of_swollen_molecules(model, world):
    found = Geometry().measure(model, world=world, samples=moved(world, lambda x: 1.1 * x), seed=Seed(0))
    bonds = np.concatenate([
        np.linalg.norm(x[b[:, 0]] - x[b[:, 1]], axis=1)
        for n, x in zip(world.train["molecule"], positions_of(world.train), strict=True)
        for b in [world.molecules.bonds[int(n)].astype(int)]
    ])  # fmt: skip
    assert found["bond_error"] == pytest.approx(0.1 * bonds.mean(), rel=0.02)
    assert found["bond_error_real"] < 0.03
    assert found["connected"] == found["clash_free"] == found["finite"] == 1
    assert found["retried"] == 0
    torn = Geometry().measure(model, world=world, samples=moved(world, lambda x: 2 * x), seed=Seed(0))
    crushed = Geometry().measure(model, world=world, samples=moved(world, lambda x: 0.3 * x), seed=Seed(0))
    assert (torn["connected"], torn["clash_free"]) == (0, 1)
    assert (crushed["connected"], crushed["clash_free"]) == (1, 0)


def test_a_second_try_is_counted(model, world, samples):
    again = samples.with_columns(retried=np.arange(len(samples)) < 4)
    found = Geometry().measure(model, world=world, samples=again, seed=Seed(0))
    assert (found["retried"], found["finite"]) == (0.25, 0.75)
    assert set(found) == {quantity.name for quantity in Geometry.quantities}


def test_molecules_with_one_conformer_have_no_yardstick(model, world):
    alone = world.train.take(np.arange(0, 16, 2))
    single = type(world)(train=alone, test=world.test, molecules=world.molecules)
    found = Coverage().measure(model, world=single, samples=alone, seed=Seed(0))
    assert "mat_recall_real" not in found
    assert found["mat_recall"] < 1e-3
    assert "bond_error_real" not in Geometry().measure(model, world=single, samples=alone, seed=Seed(0))


@pytest.mark.parametrize("metric", [Coverage(), Geometry()])
def test_a_policy_that_samples_nothing_is_told(metric, model, world):
    for nothing in (None, Rows(molecule=np.zeros(0, dtype=np.int32), positions=rows_of([], [])["positions"])):
        with pytest.raises(StudyError, match="needs sampled conformers"):
            metric.measure(model, world=world, samples=nothing, seed=Seed(0))


def test_impossible_options_are_refused():
    for make in (lambda: DenoisingLoss(strata=0), lambda: AlignedLoss(strata=0), lambda: Coverage(threshold=0.0)):
        with pytest.raises(StudyError):
            make()

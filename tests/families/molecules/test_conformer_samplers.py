"""Samplers: which levels they visit, what a row depends on, and what happens when positions become NaN."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from refeed.core.errors import Stopped, StudyError
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.families.molecules import chemistry, diffusion, metrics
from refeed.families.molecules.diffusion import noise_levels
from refeed.families.molecules.model import by_size
from refeed.families.molecules.sampler import Langevin, Strided, Truncated, clipped
from refeed.families.molecules.worlds import positions_of

SHORT = Strided(steps=20)


def positions(rows):
    return positions_of(rows).values


def test_levels():
    assert Langevin().schedule(5).tolist() == [4, 3, 2, 1, 0]
    assert Strided(steps=3).schedule(1001).tolist() == [1000, 500, 0]
    assert Strided(steps=1000).schedule(1000).tolist() == Langevin().schedule(1000).tolist()
    assert Truncated(steps=50).schedule(1000).tolist() == list(range(999, 949, -1))
    assert noise_levels(1000, 9e-3)[Truncated().schedule(1000)[-1]] > 7.5
    for sampler in (Strided, Truncated):
        with pytest.raises(StudyError, match=r"at most learner.levels = 100"):
            sampler(steps=101).schedule(100)
        with pytest.raises(StudyError, match=r"sampler.steps must be at least 1"):
            sampler(steps=0)
    for wrong in ({"step_rate": 0.0}, {"clip": -1.0}, {"global_below": -0.1}, {"retry_clip": 0.0}):
        with pytest.raises(StudyError, match=next(iter(wrong))):
            Langevin(**wrong)


def test_every_molecule_is_sampled_as_often_as_it_is_in_the_data(samples, world):
    assert np.array_equal(samples["molecule"], world.train["molecule"])
    assert np.array_equal(positions_of(samples).lengths, positions_of(world.train).lengths)


@pytest.mark.parametrize("num_rows", [0, 1, 21])
def test_more_rows_go_round_the_molecules_again(model, world, num_rows):
    before = torch.random.get_rng_state()
    rows = replace(SHORT, steps=3).sample(model, num_rows, world=world, seed=Seed(3))
    assert len(rows) == num_rows
    assert np.array_equal(rows["molecule"], world.train["molecule"][np.arange(num_rows) % 16])
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_row_does_not_depend_on_the_rows_beside_it(model, world):
    whole = SHORT.sample(model, 16, world=world, seed=Seed(2))
    for other in (SHORT.sample(model, 5, world=world, seed=Seed(2)),
                  replace(SHORT, batch_atoms=1).sample(model, 16, world=world, seed=Seed(2))):  # fmt: skip
        for row in range(len(other)):
            assert np.allclose(positions_of(other)[row], positions_of(whole)[row], atol=1e-3)
    again = SHORT.sample(model, 16, world=world, seed=Seed(2))
    assert np.array_equal(positions(whole), positions(again))
    assert not np.allclose(positions(whole), positions(SHORT.sample(model, 16, world=world, seed=Seed(3))), atol=0.1)


def test_in_double_precision_company_changes_nothing_at_all(model, world):
    double = replace(model, net=model.net.double())
    try:
        one, other = (replace(SHORT, batch_atoms=atoms).sample(double, 6, world=world, seed=Seed(2)) for atoms in (1, 10_000))
    finally:
        model.net.float()
    assert np.abs(positions(one) - positions(other)).max() < 1e-5


def test_samples_are_centred_and_nearer_to_molecules_than_what_truncation_leaves(model, world, samples):
    for x in positions_of(samples):
        assert np.abs(x.mean(axis=0)).max() < 1e-3
    left = Truncated(steps=50).sample(model, 16, world=world, seed=Seed(2))
    bond, across = metrics.distance_errors(world, samples)
    bond_left, across_left = metrics.distance_errors(world, left)
    assert 3 * bond < bond_left
    assert across < across_left


def test_an_aligned_model_that_knows_the_answer_samples_it(model, world, monkeypatch):
    known = replace(model, config=model.config | {"objective": "aligned"})
    number = int(world.train["molecule"][0])
    answer = positions_of(world.train)[0]
    at = {}
    step = Strided._step

    def watched(self, model, batch, x, sigma, after, noise, clip):
        at["sigma"] = sigma
        return step(self, model, batch, x, sigma, after, noise, clip)

    def perfect(found, batch, x):
        clean = torch.from_numpy(np.tile(answer, (batch.num_graphs, 1)))
        return (diffusion.aligned(clean, x, batch) - x) / at["sigma"], torch.zeros_like(x)

    monkeypatch.setattr(Strided, "_step", watched)
    monkeypatch.setattr(diffusion, "vectors", perfect)
    rows = Strided(steps=10).conformers(known, np.array([number, number]), world=world, seed=Seed(4))
    assert chemistry.rmsds(world.molecules, number, list(positions_of(rows)), [answer]).max() < 1e-3


def test_an_aligned_model_learns(learner, data, world):
    model = replace(learner, objective="aligned").fit(data, world=world, seed=Seed(1))
    found = metrics.AlignedLoss(strata=4).measure(model, world=world, samples=None, seed=Seed(0))
    assert found["aligned_loss"] < found["aligned_loss_zero"]


class Bursting(torch.nn.Module):
    """Answers NaN to near pairs wherever a bond is longer than `limit` Angstrom."""

    def __init__(self, net, limit):
        super().__init__()
        self.net, self.limit, self.cutoff = net, limit, net.cutoff

    def forward(self, atoms, pairs, types, lengths, num_near, *, far=True):
        local, others = self.net(atoms, pairs, types, lengths, num_near, far=far)
        return torch.where(lengths[:num_near] > self.limit, torch.full_like(local, torch.nan), local), others


def test_what_is_not_finite_is_sampled_again_and_then_ends_the_lineage(model, world, monkeypatch):
    never = replace(model, net=Bursting(model.net, 0.0))
    with pytest.raises(Stopped, match="16 of 16 conformers hold NaN or infinite positions, even when sampled again") as caught:
        replace(SHORT, steps=2).sample(never, 16, world=world, seed=Seed(2))
    assert caught.value.outcome == "non-finite"
    tries = []
    run = Strided._run

    def first_time_bad(self, model, given, rows, world, seed, clip):
        found = run(self, model, given, rows, world, seed, clip)
        tries.append((clip, rows.tolist()))
        return {row: np.full_like(x, np.nan) if len(tries) == 1 and row in (1, 4) else x for row, x in found.items()}

    monkeypatch.setattr(Strided, "_run", first_time_bad)
    rows = SHORT.sample(model, 6, world=world, seed=Seed(2))
    assert tries == [(20.0, [0, 1, 2, 3, 4, 5]), (5.0, [1, 4])]
    assert rows["retried"].tolist() == [False, True, False, False, True, False]
    assert np.isfinite(positions(rows)).all()


def test_clipping_shortens_long_vectors_only():
    vectors = torch.tensor([[3.0, 4.0, 0.0], [0.3, 0.4, 0.0], [torch.nan, 1.0, 0.0]])
    found = clipped(vectors, 1.0)
    assert torch.allclose(found[:2], torch.tensor([[0.6, 0.8, 0.0], [0.3, 0.4, 0.0]]))
    assert found[2].isnan().any()


def test_batches_hold_every_row_once_and_like_sizes():
    sizes = np.random.default_rng(0).integers(5, 30, 50)
    parts = list(by_size(sizes, atoms=100))
    assert sorted(np.concatenate(parts).tolist()) == list(range(50))
    assert max(sizes[part].sum() for part in parts) < 150
    assert list(by_size(np.zeros(0, dtype=int), atoms=100)) == []


@pytest.mark.parametrize("parts", [1, 2, 3, 30])
def test_conformers_drawn_in_parts_are_those_drawn_at_once(model, world, parts):
    sampler = replace(SHORT, steps=3, batch_atoms=120)
    whole = sampler.sample(model, 21, world=world, seed=Seed(2))
    drawn = [sampler.sample_part(model, 21, part=(part, parts), world=world, seed=Seed(2)) for part in range(parts)]
    assert sum(len(rows) > 0 for rows in drawn) >= min(parts, 3)
    rows = Rows.concatenate(drawn)
    order = np.argsort(rows["refeed_position"])
    assert np.array_equal(rows["refeed_position"][order], np.arange(21))
    rows = rows.take(order)
    assert np.array_equal(positions(rows), positions(whole))
    assert np.array_equal(positions_of(rows).offsets, positions_of(whole).offsets)
    for name in ("molecule", "retried"):
        assert np.array_equal(rows[name], whole[name])
        assert rows[name].dtype == whole[name].dtype


def test_a_part_with_rows_that_are_not_finite_is_left_to_the_whole(model, world):
    never = replace(model, net=Bursting(model.net, 0.0))
    assert replace(SHORT, steps=2).sample_part(never, 4, part=(0, 2), world=world, seed=Seed(2)) is None

"""The network and its losses: the published ones, equivariant, and the same however molecules are batched."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import published
import pytest
import torch
from molecules_toy import data_of, random_net, rotation

from refeed.core.errors import Stopped, StudyError
from refeed.core.rows import Ragged, Rows
from refeed.core.seeds import Seed
from refeed.families.molecules import graphs
from refeed.families.molecules.diffusion import aligned, aligned_loss, batch_of, distance_losses, noise_levels, scores, vectors
from refeed.families.molecules.graphs import pair_types
from refeed.families.molecules.learner import GeoDiff, antithetic, by_epochs, cycle, paper
from refeed.families.molecules.model import ConformerModel
from refeed.families.molecules.worlds import positions_of

SIZES = {"hidden": 16, "interactions": 2, "convolutions": 2}


def tensors(world, rows):
    batch = batch_of(world.molecules, world.train["molecule"][rows])
    return batch, torch.from_numpy(positions_of(world.train.take(np.asarray(rows))).values.astype(np.float64))


def state(model):
    return {name: tensor.clone() for name, tensor in model.net.state_dict().items()}


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_the_paper_preset_has_the_published_parameters():
    h = 128
    features = (1 * h + h) + (h * h + h) + 100 * h
    interaction = 2 * (h * h + h) + h * h + 2 * (h * h + h)
    head = (2 * h * h + h) + (h * h // 2 + h // 2) + (h // 2 + 1)
    by_hand = features + (100 * h + 6 * interaction) + (100 * h + 4 * 2 * (h * h + h)) + 2 * head
    learner = paper()
    net = random_net(hidden=learner.hidden, interactions=learner.interactions, convolutions=learner.convolutions)
    assert sum(parameter.numel() for parameter in net.parameters()) == by_hand == 764_290
    assert (learner.levels, learner.last_beta, learner.steps, learner.batch, learner.clip) == (1000, 9e-3, 41_000, 32, 3e4)
    assert (learner.learning_rate, learner.schedule, learner.decay, learner.patience, learner.look) == (
        1e-3,
        "plateau",
        0.6,
        10,
        500,
    )


@pytest.mark.parametrize("sigma", [0.05, 0.9, 6.0])
def test_the_loss_of_the_paper_preset_is_the_published_one(world, sigma):
    learner = paper()
    net = random_net(hidden=learner.hidden, interactions=learner.interactions, convolutions=learner.convolutions)
    weights = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
    batch, clean = tensors(world, [0, 3])
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal(clean.shape))
    with torch.no_grad():
        found = distance_losses(net, batch, clean, noise, torch.full((2,), sigma, dtype=torch.float64), cutoff=10.0)
    for graph, row in enumerate((0, 3)):
        inside = (batch.graph_N == graph).numpy()
        number = int(world.train["molecule"][row])
        types = pair_types(int(inside.sum()), world.molecules.bonds[number])
        expected = published.loss(
            weights, atoms=world.molecules.atoms[number], types=types, clean=clean.numpy()[inside], noise=noise.numpy()[inside],
            sigma=sigma, interactions=learner.interactions, convolutions=learner.convolutions,
        )  # fmt: skip
        assert [float(part[inside].mean()) for part in found] == pytest.approx(expected, rel=1e-9)
        assert min(expected) > 0


def test_noise_levels_are_the_published_ones():
    for levels, last, lowest, highest in ((1000, 9e-3, 0.0047, 9.5), (5000, 2e-3, 0.00225, 12.2)):
        sigma = noise_levels(levels, last)
        assert (np.diff(sigma) > 0).all()
        assert sigma[[0, -1]] == pytest.approx([lowest, highest], rel=0.02)
    sigma = noise_levels(1000, 9e-3)
    assert (sigma < 0.5).sum() == 412
    assert sigma[-50] == pytest.approx(7.6, abs=0.05)


@pytest.mark.parametrize("mirrored", [False, True])
def test_scores_turn_with_the_molecule_and_do_not_see_where_it_lies(world, mirrored):
    net = random_net(**SIZES)
    batch, x = tensors(world, [0, 3, 5])
    q = torch.from_numpy(rotation(mirrored=mirrored))
    plain = vectors(scores(net, batch, x), batch, x)
    moved = x @ q + torch.tensor([3.0, -40.0, 0.7], dtype=torch.float64)
    for before, after in zip(plain, vectors(scores(net, batch, moved), batch, moved), strict=True):
        assert before.abs().max() > 1e-3
        assert (after - before @ q).abs().max() < 1e-10


def test_losses_do_not_depend_on_the_molecules_beside(world):
    net = random_net(**SIZES)
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((200, 3)))
    sigma = torch.full((3,), 0.7, dtype=torch.float64)
    batch, x = tensors(world, [0, 3, 5])
    together = distance_losses(net, batch, x, noise[: len(x)], sigma, cutoff=10.0)
    alone_batch, alone_x = tensors(world, [3])
    inside = batch.graph_N == 1
    alone = distance_losses(net, alone_batch, alone_x, noise[: len(x)][inside], sigma[:1], cutoff=10.0)
    for one, other in zip(together, alone, strict=True):
        assert torch.allclose(one[inside], other, rtol=1e-12, atol=1e-12)


def test_far_pairs_beyond_the_cutoff_count_for_nothing(world):
    batch, x = tensors(world, [0])
    net = random_net(**SIZES, cutoff=2.0)
    _, far = distance_losses(net, batch, x, torch.zeros_like(x), torch.ones(1, dtype=torch.float64), cutoff=2.0)
    assert far.abs().max() == 0


def test_pair_types_count_bonds():
    chain = np.array([[0, 1, 1], [1, 2, 2], [2, 3, 1], [3, 4, 1]])
    types = pair_types(6, chain)
    assert types[0].tolist() == [0, 1, 23, 24, 0, 0]
    assert types[1, 2] == 2
    assert (types == types.T).all()
    ring = np.array([[0, 1, 12], [1, 2, 12], [0, 2, 12], [2, 3, 1]])
    assert pair_types(4, ring)[0].tolist() == [0, 12, 12, 23]


def test_pairs_and_torsions_of_a_molecule():
    # butane with a methyl group on its second atom, then cyclopropane
    molecules = graphs.Molecules.of(
        [
            ("CC(C)CC", [6] * 5, [0] * 5, [[0, 1, 1], [1, 2, 1], [1, 3, 1], [3, 4, 1]]),
            ("C1CC1", [6] * 3, [0] * 3, [[0, 1, 1], [1, 2, 1], [0, 2, 1]]),
        ],
        hydrogens=False,
    )
    near, far = molecules.pairs
    assert near.lengths.tolist() == [10, 3]
    assert far.lengths.tolist() == [0, 0]
    assert molecules.torsions[0].tolist() == [[0, 1, 3, 4]]
    assert molecules.torsions[1].shape == (0, 4)
    assert sorted(map(tuple, molecules.one_three[0].tolist())) == [(0, 2), (0, 3), (1, 4), (2, 3)]


def test_alignment_turns_but_never_mirrors(world):
    batch, x = tensors(world, [0, 3])
    turned = x @ torch.from_numpy(rotation(seed=4)) + 5
    assert torch.allclose(aligned(x, turned, batch), turned, atol=1e-9)
    mirrored = x @ torch.from_numpy(rotation(mirrored=True))
    assert (aligned(x, mirrored, batch) - mirrored).norm(dim=1).max() > 0.2


def test_the_aligned_loss_does_not_see_how_the_clean_molecule_lies(world):
    net = random_net(**SIZES)
    batch, x = tensors(world, [0, 3])
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal(x.shape))
    sigma = torch.tensor([0.3, 2.0], dtype=torch.float64)
    q = torch.from_numpy(rotation(seed=2))
    one, other = aligned_loss(net, batch, x, noise, sigma), aligned_loss(net, batch, x @ q, noise @ q, sigma)
    assert torch.allclose(one, other, rtol=1e-9)


def test_a_fit_is_a_function_of_rows_and_seed(learner, data, world):
    short = replace(learner, steps=8)
    first = short.fit(data, world=world, seed=Seed(1))
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    again = short.fit(data, world=world, seed=Seed(1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert equal(state(first), state(again))
    assert not equal(state(first), state(short.fit(data, world=world, seed=Seed(2))))


def test_training_lowers_the_losses_below_answering_nothing(model, world):
    local, far = model.losses(world.test, world, strata=5).mean(axis=0)
    zero_local, zero_far = model.losses(world.test, world, strata=5, zero=True).mean(axis=0)
    assert local < 0.75 * zero_local
    assert far < zero_far


def test_test_losses_are_the_same_each_time_and_in_any_company(model, world):
    whole = model.losses(world.test, world, strata=4)
    assert np.array_equal(whole, model.losses(world.test, world, strata=4))
    first = world.test.take(np.arange(2))
    atoms = positions_of(first).lengths.sum()
    total = positions_of(world.test).lengths.sum()
    rest_rows = np.arange(2, len(world.test))
    assert whole.shape == (4, 2)
    # the noise of a row is keyed by its number: cutting rows off the end changes nothing for those that stay
    alone = model.losses(first, world, strata=4)
    assert (alone * atoms < whole * total).all()
    assert len(rest_rows)


def test_it_is_saved_and_read_bit_for_bit(model, learner, world, tmp_path):
    model.save(tmp_path)
    back = learner.load(tmp_path)
    assert equal(state(model), state(back))
    assert back.config == model.config
    assert np.array_equal(model.losses(world.test, world, strata=2), back.losses(world.test, world, strata=2))


def test_weights_scale_the_loss_of_their_rows(source, world, learner):
    short = replace(learner, steps=5)
    twice, once, apart = (
        short.fit(data_of(source, world, weights), world=world, seed=Seed(1)) for weights in ((2.0, 2.0), (1.0, 1.0), (0.0, 1.0))
    )
    assert equal(state(twice), state(once))
    assert not equal(state(apart), state(once))


def test_epochs_follow_the_rows_and_steps_do_not(learner, source, world, monkeypatch):
    seen = []
    monkeypatch.setattr("refeed.core.progress.tick", lambda done, total, unit: seen.append(total))
    more = Rows.concatenate([world.train, world.train])
    for options, rows, expected in (
        ({"epochs": 2, "steps": None}, world.train, 4),
        ({"epochs": 2, "steps": None}, more, 8),
        ({"steps": 3}, more, 3),
    ):
        seen.clear()
        replace(learner, batch=8, **options).fit(data_of(source, world, rows=rows), world=world, seed=Seed(0))
        assert seen == [expected] * expected


def test_levels_come_in_antithetic_pairs():
    levels = antithetic(10, 1000, np.random.default_rng(0))
    assert (levels[:5] + levels[6:10][:0].sum() >= 0).all()
    assert levels[6:].tolist() == (999 - levels[:4]).tolist()
    assert len(antithetic(7, 50, np.random.default_rng(0))) == 7


def test_learning_rates():
    assert [cycle(step, 100) for step in (1, 10)] == [0.1, 1.0]
    assert cycle(100, 100) == pytest.approx(0)


def test_a_plateau_lowers_the_rate(learner, data, world, monkeypatch):
    rates = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, *a: rates.append(self.param_groups[0]["lr"]) or step(self, *a))
    monkeypatch.setattr(ConformerModel, "losses", lambda *a, **k: np.ones((10, 2)))
    replace(learner, steps=6, schedule="plateau", look=1, patience=1).fit(data, world=world, seed=Seed(0))
    assert rates[0] == rates[2] == 3e-3
    assert rates[3] == pytest.approx(0.6 * 3e-3)


def test_a_start_is_continued(learner, data, world, model):
    on = replace(learner, steps=1, learning_rate=1e-9).fit(data, world=world, seed=Seed(5), start=model)
    before = state(model)
    assert all(torch.allclose(tensor, before[name], atol=1e-6) for name, tensor in state(on).items())


def test_a_diverging_fit_is_an_outcome(learner, world, data):
    with pytest.raises(Stopped, match=r"diverged|non-finite"):
        replace(learner, learning_rate=1e12, steps=40).fit(data, world=world, seed=Seed(0))


def test_losses_with_and_without_hydrogens_are_never_mixed(model, world):
    molecules = dataclasses.replace(world.molecules, hydrogens=True)
    with pytest.raises(StudyError, match="without hydrogens, the molecules come with them"):
        model.check(molecules)


def test_presets_and_mistakes():
    assert by_epochs(epochs=3).epochs == 3
    assert GeoDiff().provides >= {"distance_loss", "steps"}
    assert "aligned_loss" in GeoDiff(objective="aligned").provides
    for wrong, message in (
        ({"hidden": 1}, "hidden"),
        ({"steps": 0}, "steps"),
        ({"steps": None}, "exclude each other"),
        ({"epochs": 4}, "exclude each other"),
        ({"objective": "other"}, "objective"),
        ({"schedule": "other"}, "schedule"),
        ({"last_beta": 0.0}, "last_beta"),
        ({"decay": 0.0}, "decay"),
        ({"clip": 0.0}, "clip"),
    ):
        with pytest.raises(StudyError, match=message):
            GeoDiff(**wrong)


def test_graphs_are_saved_and_read(world, tmp_path):
    world.molecules.save(tmp_path / "graphs.npz")
    back = graphs.Molecules.load(tmp_path / "graphs.npz")
    assert back.smiles == world.molecules.smiles
    assert back.hydrogens is False
    for name in ("atoms", "charges", "bonds"):
        one, other = getattr(world.molecules, name), getattr(back, name)
        assert isinstance(other, Ragged)
        assert np.array_equal(one.values, other.values)
        assert one.values.dtype == other.values.dtype

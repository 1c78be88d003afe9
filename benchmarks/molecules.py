"""GeoDiff's training step on undirected pairs against the directed edges of the original code, and seconds a sampled conformer.

    python benchmarks/molecules.py [--rounds 5] [--parts steps,sampling] [--sizes 0,1,2]
    python benchmarks/molecules.py --parts zero --smiles FILE     # what answering 0 costs, all pairs and at most 32 neighbours

Both layouts run the same network with the same weights on the same conformers and noise, and give the same loss (checked); they are
interleaved, and the median over rounds of processor seconds is printed, one thread. The directed layout is the original's: every
pair twice, features, filters and scores computed for both directions, messages gathered and added along edges.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from refeed.core.seeds import Seed
from refeed.families.molecules.diffusion import Batch, batch_of, distance_losses, noise_levels, scores, vectors
from refeed.families.molecules.graphs import pair_types
from refeed.families.molecules.learner import antithetic
from refeed.families.molecules.model import ConformerModel, batches, build
from refeed.families.molecules.nets import DualEncoder, at
from refeed.families.molecules.sampler import Langevin, Strided
from refeed.families.molecules.source import Conformers
from refeed.families.molecules.worlds import MoleculeWorld, positions_of

SIZES = {
    "heavy atoms, 32 wide, 3 + 3 layers": (False, {"hidden": 32, "interactions": 3, "convolutions": 3}),
    "heavy atoms, 128 wide, 6 + 4 layers": (False, {"hidden": 128, "interactions": 6, "convolutions": 4}),
    "hydrogens, 128 wide, 6 + 4 layers (paper)": (True, {"hidden": 128, "interactions": 6, "convolutions": 4}),
}
ROWS = 32


def directed_loss(net: DualEncoder, batch: Batch, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """The same loss over directed edges, as published: local and far scores for both directions of every pair."""
    x = clean + sigma[batch.graph_N, None] * noise
    near, far = (torch.cat([pairs, pairs.flip(0)], dim=1) for pairs in (batch.near_2L, batch.far_2F))
    far = far[:, (at(x, far[0]) - at(x, far[1])).norm(dim=1) <= net.cutoff]
    edges = torch.cat([near, far], dim=1)
    kinds = torch.cat([batch.type_L, batch.type_L, batch.type_L.new_zeros(far.shape[1])])
    length = (at(x, edges[0]) - at(x, edges[1])).norm(dim=1)
    features = net.of_length(length[:, None]) * net.of_type(kinds)
    num_near = near.shape[1]
    h = net.local_atom(batch.atoms_N)
    for number, convolve in enumerate(net.convolutions):
        message = torch.relu(at(h, near[1]) + features[:num_near])
        new = convolve(h + torch.zeros_like(h).index_add_(0, near[0], message))
        h = h + (torch.relu(new) if number + 1 < len(net.convolutions) else new)
    local = net.local_head(torch.cat([at(h, near[0]) * at(h, near[1]), features[:num_near]], dim=1)).squeeze(1)
    inside = (0.5 * (torch.cos(length * math.pi / net.cutoff) + 1) * (length <= net.cutoff))[:, None]
    h = net.global_atom(batch.atoms_N)
    for block in net.interactions:
        filters = block.filter_out(functional.softplus(block.filter_in(features)) - math.log(2)) * inside
        sent = block.before(h)
        received = torch.zeros_like(h).index_add_(0, edges[0], at(sent, edges[1]) * filters)
        h = h + block.out(functional.softplus(block.after(received)) - math.log(2))
    pair = torch.cat([at(h, edges[0]) * at(h, edges[1]), features], dim=1)
    far_score = net.far_head(pair).squeeze(1)[num_near:]  # for every edge, then masked, as published
    total = 0.0
    for weight, score, (i, j), d in ((5, local, near, length[:num_near]), (2, far_score, far, length[num_near:])):
        target = ((at(clean, i) - at(clean, j)).norm(dim=1) - d) / sigma[batch.graph_N[i]]
        step = ((score - target) / d)[:, None] * (at(x, i) - at(x, j))
        total = total + weight * torch.zeros_like(x).index_add_(0, i, step).index_add_(0, j, -step).square().sum(1)
    return total.mean()


def pair_loss(net: DualEncoder, batch: Batch, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    return sum(distance_losses(net, batch, clean, noise, sigma, cutoff=net.cutoff)).mean()


def steps(world: MoleculeWorld, sizes: dict[str, int], rounds: int) -> dict[str, list[float]]:
    torch.manual_seed(0)
    net = DualEncoder(**sizes)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    random, sigmas = np.random.default_rng(0), noise_levels(1000, 9e-3)
    found: dict[str, list[float]] = {"pairs": [], "directed": []}
    losses: dict[str, Callable[..., Tensor]] = {"pairs": pair_loss, "directed": directed_loss}
    for number in range(rounds + 1):
        rows = world.train.take(random.permutation(len(world.train))[:ROWS])
        batch = batch_of(world.molecules, rows["molecule"])
        clean = torch.from_numpy(positions_of(rows).values.copy())
        given = (batch, clean, torch.randn_like(clean), torch.from_numpy(sigmas[antithetic(ROWS, 1000, random)]).float())
        values = {}
        for name, loss_of in losses.items():
            start = time.process_time()
            optimizer.zero_grad()
            loss = loss_of(net, *given)
            loss.backward()
            values[name] = loss.item()
            if number:
                found[name].append(time.process_time() - start)
        assert math.isclose(values["pairs"], values["directed"], rel_tol=1e-3), values
        optimizer.step()
    return found


def sampling(world: MoleculeWorld, sizes: dict[str, int], *, hydrogens: bool) -> None:
    """Processor seconds a conformer, and where they go: a level without the global encoder, and one with it."""
    torch.manual_seed(0)
    config = sizes | {"cutoff": 10.0, "smooth": True, "levels": 1000, "last_beta": 9e-3, "objective": "distance"}
    model = ConformerModel(net=build(config).eval(), config=config | {"hydrogens": hydrogens})
    rows = world.train.take(np.arange(ROWS))
    (_, batch, x), *_ = batches(rows, world.molecules, atoms=700)
    cost = {}
    for far in (False, True):
        with torch.inference_mode():
            times = []
            for _ in range(7):
                start = time.process_time()
                vectors(scores(model.net, batch, x, far=far), batch, x)
                times.append((time.process_time() - start) / batch.num_graphs)
        cost[far] = statistics.median(times)
    print(f"  a level, near pairs only {1e3 * cost[False]:.3f} ms a conformer; with all pairs {1e3 * cost[True]:.3f} ms")
    for number, levels, last_beta in ((100, 1000, 9e-3), (1000, 1000, 9e-3), (5000, 5000, 2e-3)):
        sigmas = noise_levels(levels, last_beta)
        sampler = Strided(steps=number) if number < levels else Langevin()
        with_far = int((sigmas[sampler.schedule(levels)] < sampler.global_below).sum())
        network = (number - with_far) * cost[False] + with_far * cost[True]
        print(f"  {number} levels: the network alone {network:.4f} s a conformer ({with_far} levels with all pairs)", end="")
        if sizes["hidden"] == 32 and levels == 1000:
            start = time.process_time()
            sampler.conformers(model, world.given[:ROWS], world=world, seed=Seed(0))
            print(f"; with noise and batching {(time.process_time() - start) / ROWS:.4f} s", end="")
        print()


def zero(path: str, *, molecules: int = 150, neighbours: int = 32) -> None:
    """The global loss of answering 0, hydrogens kept, over 20 levels: all pairs within the cutoff, and at most so many an atom.

    The original's radius graph gives each atom 32 neighbours at most, here the first by number, as it does on a GPU.
    """
    source = Conformers(path=path, molecules=1, test_molecules=molecules, conformers=1, hydrogens=True)
    world, random = source.draw(seed=Seed(0)), np.random.default_rng(0)
    totals, atoms = {None: 0.0, neighbours: 0.0}, 0
    for number, x in zip(world.test["molecule"].tolist(), positions_of(world.test), strict=True):
        clean = x.astype(float)
        types = pair_types(len(clean), world.molecules.bonds[number])
        true = np.linalg.norm(clean[:, None] - clean, axis=2)
        for sigma in noise_levels(1000, 9e-3)[25::50]:
            noisy = clean + sigma * random.standard_normal(clean.shape)
            between = noisy[:, None] - noisy
            length = np.linalg.norm(between, axis=2)
            inside = (length <= 10) & ~np.eye(len(clean), dtype=bool)
            for most in totals:
                edges = inside if most is None else inside & (np.cumsum(inside, axis=1) <= most)
                target = np.where(edges & (types == 0), (true - length) / sigma, 0) / np.maximum(length, 1e-6)
                force = (target[:, :, None] * between).sum(1) - (target[:, :, None] * between).sum(0)
                totals[most] += 2 * (force**2).sum()
            atoms += len(clean)
    mean = world.molecules.atoms.lengths.mean()
    print(f"global loss of answering 0, {molecules} molecules of {mean:.1f} atoms: {totals[None] / atoms:.0f} over all pairs,")
    print(f"  {totals[neighbours] / atoms:.0f} over at most {neighbours} neighbours an atom")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", default="steps,sampling")
    parser.add_argument("--sizes", default="0,1,2", help="places in the list of sizes")
    parser.add_argument("--smiles", default="", help="for the part zero: a file of SMILES; without it, the frozen list")
    options = parser.parse_args()
    if "zero" in options.parts:
        zero(options.smiles)
        return
    torch.set_num_threads(1)
    names = [list(SIZES)[int(place)] for place in options.sizes.split(",")]
    worlds = {
        hydrogens: Conformers(molecules=60, test_molecules=4, conformers=2, hydrogens=hydrogens).draw(seed=Seed(0))
        for hydrogens in {SIZES[name][0] for name in names}
    }
    for name in names:
        hydrogens, sizes = SIZES[name]
        world = worlds[hydrogens]
        print(name, flush=True)
        if "steps" in options.parts:
            found = {layout: statistics.median(times) for layout, times in steps(world, sizes, options.rounds).items()}
            ratio = found["directed"] / found["pairs"]
            print(
                f"  a step of {ROWS}: pairs {1e3 * found['pairs']:.1f} ms, directed {1e3 * found['directed']:.1f} ms: {ratio:.2f} x"
            )
        if "sampling" in options.parts:
            sampling(world, sizes, hydrogens=hydrogens)


if __name__ == "__main__":
    main()

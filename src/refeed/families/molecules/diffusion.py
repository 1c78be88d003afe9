"""The diffusion of positions: noise levels, batches of molecules, and the two objectives of GeoDiff.

Positions are in Angstrom and noise is added as x + sigma * noise (the published code's form: the process without its shrinking
factor). A level is a number 0 (least noise) to T - 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from refeed.families.molecules.graphs import Molecules
from refeed.families.molecules.nets import DualEncoder, lengths, towards

GLOBAL_WEIGHT, LOCAL_WEIGHT = 2.0, 5.0  # of the two losses, as published
FIRST_BETA = 1e-7


@lru_cache(maxsize=8)
def noise_levels(levels: int, last_beta: float) -> np.ndarray:
    """sigma of each level in Angstrom, (T,) float64: sqrt((1 - a) / a), a the running product of 1 - beta, beta sigmoid in time."""
    rising = 1 / (1 + np.exp(-np.linspace(-6, 6, levels)))
    kept = np.cumprod(1 - (rising * (last_beta - FIRST_BETA) + FIRST_BETA))
    return np.sqrt((1 - kept) / kept)


@dataclass(frozen=True, eq=False)
class Batch:
    """Some conformers laid end to end: G conformers, N atoms, L near pairs and F far ones, all pairs with i < j."""

    atoms_N: Tensor
    graph_N: Tensor  # which conformer an atom belongs to
    near_2L: Tensor
    type_L: Tensor
    far_2F: Tensor
    num_graphs: int

    def to(self, device: torch.device) -> Batch:
        return Batch(**{name: part.to(device) if isinstance(part, Tensor) else part for name, part in vars(self).items()})


def batch_of(molecules: Molecules, chosen: np.ndarray) -> Batch:
    """The graphs of the molecules `chosen`, one a conformer."""
    near, far = (pairs.take(chosen) for pairs in molecules.pairs)
    atoms = molecules.atoms.take(chosen)
    first = atoms.offsets[:-1]
    near_at, far_at = (np.repeat(first, pairs.lengths)[:, None] for pairs in (near, far))
    return Batch(
        atoms_N=torch.from_numpy(atoms.values.astype(np.int64)),
        graph_N=torch.from_numpy(np.repeat(np.arange(len(chosen)), atoms.lengths)),
        near_2L=torch.from_numpy(np.ascontiguousarray((near.values[:, :2] + near_at).T)),
        type_L=torch.from_numpy(near.values[:, 2].astype(np.int64)),
        far_2F=torch.from_numpy(np.ascontiguousarray((far.values + far_at).T)),
        num_graphs=len(chosen),
    )


@dataclass(frozen=True, eq=False)
class Scores:
    """What the network says of perturbed positions: a number for each pair, and the pairs it looked at."""

    local_L: Tensor
    far_K: Tensor | None  # K far pairs within the cutoff
    far_2K: Tensor
    near_length_L: Tensor
    far_length_K: Tensor


def scores(net: DualEncoder, batch: Batch, positions_N3: Tensor, *, far: bool = True) -> Scores:
    """Scores of the near pairs and, if `far`, of the others that are within the cutoff."""
    near_length_L = lengths(positions_N3, batch.near_2L)
    far_2K, far_length_K = batch.far_2F[:, :0], near_length_L[:0]
    if far:
        far_length_F = lengths(positions_N3, batch.far_2F)
        inside = (far_length_F <= net.cutoff).nonzero().squeeze(1)
        far_2K, far_length_K = batch.far_2F[:, inside], far_length_F[inside]
    pairs_2P = torch.cat([batch.near_2L, far_2K], dim=1)
    type_P = torch.cat([batch.type_L, batch.type_L.new_zeros(far_2K.shape[1])])
    length_P = torch.cat([near_length_L, far_length_K])
    local_L, far_K = net(batch.atoms_N, pairs_2P, type_P, length_P, len(near_length_L), far=far)
    return Scores(local_L, far_K, far_2K, near_length_L, far_length_K)


def vectors(found: Scores, batch: Batch, positions_N3: Tensor) -> tuple[Tensor, Tensor]:
    """The scores as vectors at atoms, local and global: (N, 3) each."""
    local_N3 = towards(found.local_L, positions_N3, batch.near_2L, found.near_length_L)
    if found.far_K is None:
        return local_N3, torch.zeros_like(local_N3)
    return local_N3, towards(found.far_K, positions_N3, found.far_2K, found.far_length_K)


def distance_losses(
    net: DualEncoder | None, batch: Batch, clean_N3: Tensor, noise_N3: Tensor, sigma_G: Tensor, *, cutoff: float
) -> tuple[Tensor, Tensor]:
    """The published losses of each atom, local and global: (N,) each. Without a net, of scores that are all zero.

    A pair's target is (true length - perturbed length) / sigma. Targets and scores become vectors at atoms by `towards`; the local
    loss is 5 |difference|^2 over near pairs, the global one 2 |difference|^2 over far pairs within the cutoff.
    """
    positions_N3 = clean_N3 + sigma_G[batch.graph_N, None] * noise_N3
    if net is None:
        near_length_L, far_length_F = lengths(positions_N3, batch.near_2L), lengths(positions_N3, batch.far_2F)
        inside = (far_length_F <= cutoff).nonzero().squeeze(1)
        found = Scores(torch.zeros_like(near_length_L), torch.zeros_like(far_length_F[inside]), batch.far_2F[:, inside],
                       near_length_L, far_length_F[inside])  # fmt: skip
    else:
        found = scores(net, batch, positions_N3)
    assert found.far_K is not None
    losses = []
    for weight, score, pairs_2P, length in (
        (LOCAL_WEIGHT, found.local_L, batch.near_2L, found.near_length_L),
        (GLOBAL_WEIGHT, found.far_K, found.far_2K, found.far_length_K),
    ):
        target = (lengths(clean_N3, pairs_2P) - length) / sigma_G[batch.graph_N[pairs_2P[0]]]
        losses.append(weight * towards(score - target, positions_N3, pairs_2P, length).square().sum(1))
    return losses[0], losses[1]


def aligned_loss(net: DualEncoder | None, batch: Batch, clean_N3: Tensor, noise_N3: Tensor, sigma_G: Tensor) -> Tensor:
    """Of each atom, |local + global vector - (x0 - x) / sigma|^2, with the clean positions x0 turned onto the perturbed x: (N,).

    GeoDiff's alignment objective; the rotation is proper and removes what no equivariant network can know. Without a net, of zero.
    """
    positions_N3 = clean_N3 + sigma_G[batch.graph_N, None] * noise_N3
    target_N3 = (aligned(clean_N3, positions_N3, batch) - positions_N3) / sigma_G[batch.graph_N, None]
    if net is None:
        return target_N3.square().sum(1)
    local_N3, global_N3 = vectors(scores(net, batch, positions_N3), batch, positions_N3)
    return (local_N3 + global_N3 - target_N3).square().sum(1)


def centred(positions_N3: Tensor, batch: Batch) -> Tensor:
    """Every conformer moved to a mean of zero."""
    return positions_N3 - _means(positions_N3, batch)[batch.graph_N]


def aligned(moving_N3: Tensor, fixed_N3: Tensor, batch: Batch) -> Tensor:
    """Each conformer of `moving`, turned (never mirrored) and shifted onto that of `fixed` as near as it gets (Kabsch, 1976)."""
    mean_G3 = _means(fixed_N3, batch)
    a_N3, b_N3 = centred(moving_N3, batch), fixed_N3 - mean_G3[batch.graph_N]
    zeros_G33 = a_N3.new_zeros(batch.num_graphs, 3, 3)
    covariance_G33 = zeros_G33.index_add(0, batch.graph_N, a_N3[:, :, None] * b_N3[:, None, :])
    u, _, vh = torch.linalg.svd(covariance_G33)
    sign_G = torch.sign(torch.linalg.det(u) * torch.linalg.det(vh))
    u = torch.cat([u[:, :, :2], u[:, :, 2:] * sign_G[:, None, None]], dim=2)
    turn_G33 = u @ vh
    return torch.einsum("na,nab->nb", a_N3, turn_G33[batch.graph_N]) + mean_G3[batch.graph_N]


def _means(positions_N3: Tensor, batch: Batch) -> Tensor:
    sums_G3 = positions_N3.new_zeros(batch.num_graphs, 3).index_add_(0, batch.graph_N, positions_N3)
    return sums_G3 / torch.bincount(batch.graph_N, minlength=batch.num_graphs)[:, None]

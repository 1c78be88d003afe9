"""GeoDiff's network (Xu et al., 2022) in plain PyTorch. Imports nothing of refeed: one can copy this file out.

Unusual: each pair of atoms is there once (i < j), not as two directed edges, since lengths, pair types and scores are symmetric;
no compiled graph extension is needed. The network is told neither the noise level nor the positions, only distances: it must infer
the level from them. N atoms, L near pairs (up to three bonds apart), F far pairs, P = L + F, H hidden.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

NUM_TYPES = 100  # rows of the embeddings of atomic numbers and of pair types


class DualEncoder(nn.Module):
    """A score for every pair of atoms, along the line between them: `local` for near pairs, `far` for the others.

    The global encoder is SchNet-like: `interactions` continuous-filter convolutions over all pairs, with filters from the pair's
    features, cut off at `cutoff` Angstrom (`smooth`: by half a cosine, else sharply). The local one is a GIN: `convolutions` over
    near pairs. Both read the same features of a pair: MLP(length) * embedding(type).
    """

    def __init__(
        self, *, hidden: int = 128, interactions: int = 6, convolutions: int = 4, cutoff: float = 10.0, smooth: bool = True
    ) -> None:
        super().__init__()
        self.cutoff, self.smooth = cutoff, smooth
        self.of_length = mlp(1, hidden, hidden)
        self.of_type = nn.Embedding(NUM_TYPES, hidden)
        self.global_atom = nn.Embedding(NUM_TYPES, hidden, max_norm=10.0)
        self.interactions = nn.ModuleList(Interaction(hidden) for _ in range(interactions))
        self.far_head = mlp(2 * hidden, hidden, hidden // 2, 1)
        self.local_atom = nn.Embedding(NUM_TYPES, hidden)
        self.convolutions = nn.ModuleList(mlp(hidden, hidden, hidden) for _ in range(convolutions))
        self.local_head = mlp(2 * hidden, hidden, hidden // 2, 1)

    def forward(
        self, atoms_N: Tensor, pairs_2P: Tensor, type_P: Tensor, length_P: Tensor, num_near: int, *, far: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """(L,) scores of the near pairs, which come first, and (F,) of the others; None for them if `far` is false."""
        if not far:
            pairs_2P, type_P, length_P = pairs_2P[:, :num_near], type_P[:num_near], length_P[:num_near]
        i_P, j_P = pairs_2P
        features_PH = self.of_length(length_P[:, None]) * self.of_type(type_P)
        i_L, j_L, features_LH = i_P[:num_near], j_P[:num_near], features_PH[:num_near]
        h_NH = self.local_atom(atoms_N)
        for number, convolve in enumerate(self.convolutions):
            new_NH = convolve(h_NH.index_add(0, i_L, torch.relu(at(h_NH, j_L) + features_LH)).index_add_(
                0, j_L, torch.relu(at(h_NH, i_L) + features_LH)
            ))  # fmt: skip
            h_NH = h_NH + (torch.relu(new_NH) if number + 1 < len(self.convolutions) else new_NH)
        local_L = self.local_head(torch.cat([at(h_NH, i_L) * at(h_NH, j_L), features_LH], dim=1)).squeeze(1)
        if not far:
            return local_L, None
        envelope_P1 = envelope(length_P, self.cutoff, smooth=self.smooth)[:, None]
        h_NH = self.global_atom(atoms_N)
        for interact in self.interactions:
            h_NH = h_NH + interact(h_NH, i_P, j_P, features_PH, envelope_P1)
        i_F, j_F = i_P[num_near:], j_P[num_near:]
        pair_FH = torch.cat([at(h_NH, i_F) * at(h_NH, j_F), features_PH[num_near:]], dim=1)
        return local_L, self.far_head(pair_FH).squeeze(1)


class Interaction(nn.Module):
    """h -> linear(ssp(linear(sum over neighbours j of linear(h_j) * filter_ij))), ssp(x) = log(1 + e^x) - log 2."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.filter_in, self.filter_out = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.before = nn.Linear(hidden, hidden, bias=False)
        self.after = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, hidden)

    def forward(self, h_NH: Tensor, i_P: Tensor, j_P: Tensor, features_PH: Tensor, envelope_P1: Tensor) -> Tensor:
        filter_PH = self.filter_out(shifted_softplus(self.filter_in(features_PH))) * envelope_P1
        h_NH = self.before(h_NH)
        sum_NH = PairSum.apply(h_NH, filter_PH, i_P, j_P)
        return self.out(shifted_softplus(self.after(sum_NH)))


class PairSum(torch.autograd.Function):
    """sum over pairs {i, j} of filter_ij * h_j at i, and of filter_ij * h_i at j: each filter serves both directions."""

    @staticmethod
    def forward(ctx, h_NH, filter_PH, i_P, j_P):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(h_NH, filter_PH, i_P, j_P)
        return _pair_sum(h_NH, filter_PH, i_P, j_P)

    @staticmethod
    def backward(ctx, grad_NH):  # type: ignore[no-untyped-def]
        h_NH, filter_PH, i_P, j_P = ctx.saved_tensors
        grad_filter_PH = at(grad_NH, i_P).mul_(at(h_NH, j_P)).addcmul_(at(grad_NH, j_P), at(h_NH, i_P))
        return _pair_sum(grad_NH, filter_PH, i_P, j_P), grad_filter_PH, None, None


def _pair_sum(h_NH: Tensor, filter_PH: Tensor, i_P: Tensor, j_P: Tensor) -> Tensor:
    sum_NH = torch.zeros_like(h_NH)
    sum_NH.index_add_(0, i_P, at(h_NH, j_P).mul_(filter_PH))
    return sum_NH.index_add_(0, j_P, at(h_NH, i_P).mul_(filter_PH))


def towards(score_P: Tensor, positions_N3: Tensor, pairs_2P: Tensor, length_P: Tensor) -> Tensor:
    """Scores of pairs as vectors at atoms: (N, 3), 2 sum over pairs of score * (x_i - x_j) / length at i, its negative at j.

    Twice, as in the published code, whose sum over directed edges meets each pair two times at each of its atoms. Equivariant to
    rotation and reflection, invariant to translation.
    """
    i_P, j_P = pairs_2P
    along_P3 = (2 * score_P / length_P)[:, None] * (at(positions_N3, i_P) - at(positions_N3, j_P))
    return torch.zeros_like(positions_N3).index_add_(0, i_P, along_P3).index_add_(0, j_P, -along_P3)


def at(rows_NH: Tensor, index_P: Tensor) -> Tensor:
    """rows_NH[index_P], faster on a processor."""
    return rows_NH.index_select(0, index_P)


def lengths(positions_N3: Tensor, pairs_2P: Tensor) -> Tensor:
    """Distances of pairs, at least 1e-6 so that nothing is divided by zero."""
    i_P, j_P = pairs_2P
    return (at(positions_N3, i_P) - at(positions_N3, j_P)).square().sum(1).sqrt().clamp_min(1e-6)


def envelope(length: Tensor, cutoff: float, *, smooth: bool) -> Tensor:
    inside = (length <= cutoff).to(length.dtype)
    return 0.5 * (torch.cos(length * (math.pi / cutoff)) + 1) * inside if smooth else inside


def shifted_softplus(x: Tensor) -> Tensor:
    return functional.softplus(x) - math.log(2)


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])

"""GeoDiff's loss by hand: NumPy, float64, loops over directed edges, from the published definition alone."""

from __future__ import annotations

import numpy as np


def linear(state, name, x):
    bias = state.get(f"{name}.bias", 0.0)
    return x @ state[f"{name}.weight"].T + bias


def mlp(state, name, x, layers):
    for number in range(layers):
        x = linear(state, f"{name}.{2 * number}", x)
        x = np.maximum(x, 0) if number + 1 < layers else x
    return x


def ssp(x):
    return np.logaddexp(0, x) - np.log(2)


def to_positions(scores, x, edges, lengths):
    """sum over directed edges (i, j) of score (x_i - x_j) / d at i, and of its negative at j."""
    out = np.zeros_like(x)
    for (i, j), score, d in zip(edges, scores, lengths, strict=True):
        step = score * (x[i] - x[j]) / d
        out[i] += step
        out[j] -= step
    return out


def loss(state, *, atoms, types, clean, noise, sigma, interactions, convolutions, cutoff=10.0):
    """Local and global loss of one molecule, mean over its atoms; `types` (atoms, atoms): 0 where further than three bonds."""
    x = clean + sigma * noise
    distance = np.linalg.norm(x[:, None] - x[None], axis=2)
    n = len(atoms)
    edges = [(i, j) for i in range(n) for j in range(n) if i != j and (types[i, j] > 0 or distance[i, j] <= cutoff)]
    d = np.array([distance[e] for e in edges])
    kind = np.array([types[e] for e in edges])
    features = mlp(state, "of_length", d[:, None], 2) * state["of_type.weight"][kind]

    embedded = state["global_atom.weight"][atoms]
    h = embedded * np.minimum(1, 10 / (np.linalg.norm(embedded, axis=1, keepdims=True) + 1e-7))
    inside = 0.5 * (np.cos(d * np.pi / cutoff) + 1) * (d <= cutoff)
    for block in range(interactions):
        name = f"interactions.{block}"
        filters = linear(state, f"{name}.filter_out", ssp(linear(state, f"{name}.filter_in", features))) * inside[:, None]
        sent, received = linear(state, f"{name}.before", h), np.zeros_like(h)
        for (i, j), filter_ij in zip(edges, filters, strict=True):
            received[i] += sent[j] * filter_ij
        h = h + linear(state, f"{name}.out", ssp(linear(state, f"{name}.after", received)))
    pair = np.array([np.concatenate([h[i] * h[j], f]) for (i, j), f in zip(edges, features, strict=True)])
    score_global = mlp(state, "far_head", pair, 3)[:, 0]

    near = np.flatnonzero(kind > 0)
    h = state["local_atom.weight"][atoms]
    for layer in range(convolutions):
        received = h.copy()
        for e in near:
            i, j = edges[e]
            received[i] += np.maximum(h[j] + features[e], 0)
        new = mlp(state, f"convolutions.{layer}", received, 2)
        h = h + (np.maximum(new, 0) if layer + 1 < convolutions else new)
    pair = np.array([np.concatenate([h[edges[e][0]] * h[edges[e][1]], features[e]]) for e in near])
    score_local = mlp(state, "local_head", pair, 3)[:, 0]

    true = np.linalg.norm(clean[:, None] - clean[None], axis=2)
    target = (np.array([true[e] for e in edges]) - d) / sigma
    far = np.flatnonzero((kind == 0) & (d <= cutoff))
    losses = []
    for weight, chosen, scores in ((5, near, score_local), (2, far, score_global[far])):
        on = [edges[e] for e in chosen]
        difference = to_positions(scores, x, on, d[chosen]) - to_positions(target[chosen], x, on, d[chosen])
        losses.append(weight * (difference**2).sum() / n)
    return losses

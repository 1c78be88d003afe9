"""Categorical distributions and Markov chains refitted on their own draws: counts, never rows."""

from __future__ import annotations

from typing import Literal

import numpy as np

from refeed.theory.registry import require
from refeed.theory.schedules import Generations, Schedule, by_generation, horizon
from refeed.theory.simulate.radial import Randomness


def wright_fisher(
    *,
    p: np.ndarray,
    T: Schedule,
    n: Generations = None,
    policy: Literal["replace", "accumulate"] = "replace",
    runs: int,
    seed: Randomness = 0,
) -> np.ndarray:
    """The fitted probabilities, shape (runs, n, symbols), under replace (Wright-Fisher) or accumulate (a batch Polya urn).

    Exact: T draws are one multinomial vector of counts; O(symbols) a generation, whatever T.
    """
    rng, last = np.random.default_rng(seed), horizon(n, T)
    rows = by_generation(T, last).astype(int)
    truth = np.asarray(p, dtype=float)
    require(truth.ndim == 1 and abs(truth.sum() - 1) < 1e-9 and truth.min() >= 0, "p must be probabilities that sum to 1")
    require(rows.min() >= 1, f"T must be at least 1, not {rows.min()}")
    require(policy in ("replace", "accumulate"), f"policy must be 'replace' or 'accumulate', not {policy!r}")
    found = np.empty((runs, last, len(truth)))
    share: np.ndarray = np.tile(truth, (runs, 1))
    counts: np.ndarray = np.zeros((runs, len(truth)))
    for g, draws in enumerate(rows):
        fresh = rng.multinomial(draws, share)
        counts = fresh + (counts if policy == "accumulate" else 0.0)
        share = counts / counts.sum(axis=1, keepdims=True)
        found[:, g] = share
    return found


def markov(
    *,
    transitions: np.ndarray,
    start: np.ndarray,
    T: Schedule,
    n: Generations = None,
    policy: Literal["replace", "accumulate"] = "replace",
    runs: int,
    seed: Randomness = 0,
) -> np.ndarray:
    """The fitted transition matrices, shape (runs, n, states, states), of chains refitted on their own path of T steps.

    Exact: the path is walked for all lineages at once and only its transition counts are kept. A state that was never left keeps no
    row of its own: it is refitted as the start distribution, as in refeed.families.categorical.
    """
    rng, last = np.random.default_rng(seed), horizon(n, T)
    rows = by_generation(T, last).astype(int)
    matrix, first = np.asarray(transitions, dtype=float), np.asarray(start, dtype=float)
    states = len(first)
    require(matrix.shape == (states, states), f"transitions must be {states} x {states}, not of shape {matrix.shape}")
    found = np.empty((runs, last, states, states))
    model, counts, lineage = np.tile(matrix, (runs, 1, 1)), np.zeros((runs, states, states)), np.arange(runs)
    for g, steps in enumerate(rows):
        counts = counts if policy == "accumulate" else np.zeros((runs, states, states))
        ladder = np.cumsum(model, axis=2)
        state = np.minimum(np.searchsorted(np.cumsum(first), rng.random(runs)), states - 1)
        for _ in range(steps):
            following = (ladder[lineage, state] < rng.random(runs)[:, None] * ladder[lineage, state, -1:]).sum(axis=1)
            counts[lineage, state, following] += 1
            state = following
        left = counts.sum(axis=2, keepdims=True)
        model = np.where(left > 0, counts / np.maximum(left, 1.0), first)
        found[:, g] = model
    return found

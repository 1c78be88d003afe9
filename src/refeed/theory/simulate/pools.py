"""Least squares on pools of fixed size: uniform reservoirs, history mixtures, subsamples of everything.

A reservoir needs no rows. All rows (x, u), u the error of the label, that were born together are a block; given its Gram matrix a
block is turned at random (its law is invariant under rotations of its rows), so what is kept of it by chance has the Gram matrix
R'BR, with R'R the old one and B matrix beta of the kept and the dropped number of rows. Nothing else enters a fit. Subsamples of
everything cannot be reduced so: rows come back, and a row is told apart by all the generations that it was drawn in, 2^(n-1)
histories for the rows of generation 1. There the rows that are ever used are drawn, when they are first used.
"""

from __future__ import annotations

import numpy as np

from refeed.theory.registry import require
from refeed.theory.schedules import Generations, Schedule, by_generation, horizon
from refeed.theory.simulate.gram import CHUNK
from refeed.theory.simulate.radial import Randomness

ENTRIES = 2e6  # of all blocks' factors at once


def reservoir(
    *, d: int, T: Schedule, M: int | None = None, n: Generations = None, s: Schedule = 1.0, runs: int, seed: Randomness = 0
) -> np.ndarray:
    """Excess risk of least squares on a uniform reservoir of M rows (T_1 of them where not given), T_i new rows offered each time.

    Exact for isotropic Gaussian x, any d <= M and T_1; O(n d^3) a generation and O(n d^2) memory, whatever T and M.
    """
    rng, last = np.random.default_rng(seed), horizon(n, T, s)
    rows, noise = by_generation(T, last).astype(int), by_generation(s, last)
    size = int(rows[0] if M is None else M)
    require(d >= 1 and min(size, rows[0]) >= d, f"M and T_1 >= d >= 1 are needed, not M = {size}, T_1 = {rows[0]}, d = {d}")
    require(rows.min() >= 0, f"T must not be negative, not {rows.min()}")
    errors = np.empty((runs, last))
    step = int(max(1, min(CHUNK, ENTRIES / (last * (d + 1) ** 2))))
    for start in range(0, runs, step):
        _reservoir(rng, d, rows, noise, size, errors[start : start + step])
    return errors


def _reservoir(rng: np.random.Generator, d: int, rows: np.ndarray, noise: np.ndarray, M: int, out: np.ndarray) -> None:
    runs = len(out)
    error = np.zeros((runs, d, 1))
    blocks = np.zeros((0, runs, d + 1, d + 1))  # R of each block, as many rows of it non-zero as the block has, at most d + 1
    counts = np.zeros((0, runs), dtype=np.int64)
    seen = 0
    for g, offered in enumerate(rows):
        if seen + offered <= M:
            entering = np.full(runs, offered)
        else:
            entering = rng.hypergeometric(offered, seen, M, runs) if seen else np.full(runs, M)
        seen += int(offered)
        held = counts.sum(axis=0)
        staying = np.minimum(held, min(seen, M) - entering)
        kept = _shares(rng, counts, held, staying)
        blocks = _thinned(rng, blocks, counts, kept)
        fresh = _triangles(rng, entering[None], d + 1)
        fresh[..., d:] = fresh[..., :d] @ error[None] + noise[g] * fresh[..., d:]
        blocks, counts = np.concatenate([blocks, fresh]), np.concatenate([kept, entering[None]])
        alive = counts.any(axis=1)
        blocks, counts = blocks[alive], counts[alive]
        gram = (blocks.swapaxes(2, 3) @ blocks).sum(axis=0)
        error = np.linalg.solve(gram[:, :d, :d], gram[:, :d, d:])
        out[:, g] = (error[:, :, 0] ** 2).sum(axis=1)


def _shares(rng: np.random.Generator, counts: np.ndarray, total: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """How many of `chosen` rows, drawn without replacement of `total`, come from each block."""
    found, left, chosen = np.empty_like(counts), total.copy(), chosen.copy()
    for block, number in enumerate(counts):
        left = left - number
        found[block] = rng.hypergeometric(number, left, chosen)
        chosen -= found[block]
    return found


def _triangles(rng: np.random.Generator, rows: np.ndarray, p: int) -> np.ndarray:
    """Upper triangles F with F'F ~ W_p(rows), of shape rows.shape + (p, p); fewer than p rows leave as many rows of F non-zero."""
    factor = np.triu(rng.standard_normal((*rows.shape, p, p)), 1)
    freedom = rows[..., None] - np.arange(p)
    on = np.arange(p)
    factor[..., on, on] = np.sqrt(2.0 * rng.standard_gamma(np.maximum(freedom, 1e-300) / 2))
    return factor * (freedom > 0)[..., None]


def _thinned(rng: np.random.Generator, blocks: np.ndarray, counts: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Factors of `kept` of each block's `counts` rows, drawn without replacement: Q_1 R, [Q_1; Q_2] orthogonal from [F_1; F_2]."""
    if not len(blocks):
        return blocks
    p = blocks.shape[-1]
    inside = (np.arange(p) < counts[..., None])[..., None, :]  # a block of fewer than p rows lives in as many columns
    halves = [_triangles(rng, rows, p) * inside for rows in (kept, counts - kept)]
    orthogonal, triangle = np.linalg.qr(np.concatenate(halves, axis=-2))
    sign = np.where(np.diagonal(triangle, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
    thinned = (orthogonal[..., :p, :] * (sign[..., None, :] * inside)) @ blocks
    return np.where((kept == counts)[..., None, None], blocks, thinned)


def history_mixture(*, d: int, M: int, n: int, s: Schedule = 1.0, runs: int, seed: Randomness = 0) -> np.ndarray:
    """Excess risk when each of M fresh rows is labelled by the truth or an earlier model at random: the law of that name.

    Exact: rows of one labeller are a Wishart factor A with X'E | X = s A z. O(n d^3) a generation; no rows, only the n models.
    """
    rng, noise = np.random.default_rng(seed), by_generation(s, horizon(n, s))
    require(M >= d >= 1, f"M >= d >= 1 is needed, not M = {M} and d = {d}")
    errors = np.empty((runs, n))
    step = int(max(1, min(CHUNK, ENTRIES / (n * d**2))))
    for start in range(0, runs, step):
        out = errors[start : start + step]
        models = np.zeros((1, len(out), d, 1))  # the truth first
        for g in range(n):
            counts = rng.multinomial(M, np.full(g + 1, 1 / (g + 1)), len(out)).T
            factor = _triangles(rng, counts, d)
            grams = factor.swapaxes(2, 3) @ factor
            noises = noise[g] * (factor.swapaxes(2, 3) @ rng.standard_normal(models.shape))
            error = np.linalg.solve(grams.sum(axis=0), (grams @ models + noises).sum(axis=0))
            out[:, g] = (error[:, :, 0] ** 2).sum(axis=1)
            models = np.concatenate([models, error[None]])
    return errors


def accumulate_subsample(
    *, d: int, T: Schedule, M: int | None = None, n: Generations = None, s: Schedule = 1.0, runs: int, seed: Randomness = 0
) -> np.ndarray:
    """Excess risk when everything is kept and each fit takes M rows (T_1 where not given), drawn without replacement.

    Exact, from rows, each drawn when it is first used: about half of the pool is, in the end. O(M d^2) a generation.
    """
    rng, last = np.random.default_rng(seed), horizon(n, T, s)
    rows, noise = by_generation(T, last).astype(int), by_generation(s, last)
    size = int(rows[0] if M is None else M)
    require(d >= 1 and rows[0] >= size >= d, f"T_1 >= M >= d >= 1 is needed, not T_1 = {rows[0]}, M = {size}, d = {d}")
    require(rows.min() >= 0, f"T must not be negative, not {rows.min()}")
    errors = np.empty((runs, last))
    for lineage in errors:
        _subsample(rng, d, rows, noise, size, lineage)
    return errors


def _subsample(rng: np.random.Generator, d: int, rows: np.ndarray, noise: np.ndarray, M: int, out: np.ndarray) -> None:
    table = np.empty((2 * M, d + 1))  # (x, error of the label) of the rows used so far
    used, unused = 0, rows[:1]
    models = [np.zeros(d)]
    for g in range(len(rows)):
        drawn = rng.multivariate_hypergeometric([used, *unused], M) if g else np.array([0, M])
        chosen = [rng.choice(used, drawn[0], replace=False)] if drawn[0] else []
        if used + M > len(table):
            table = np.concatenate([table, np.empty_like(table)])
        for origin, count in enumerate(drawn[1:]):
            new = rng.standard_normal((count, d + 1))
            new[:, d] = new[:, :d] @ models[origin] + noise[origin] * new[:, d]
            table[used : used + count] = new
            chosen.append(np.arange(used, used + count))
            used += int(count)
        part = table[np.concatenate(chosen)]
        models.append(np.linalg.solve(part[:, :d].T @ part[:, :d], part[:, :d].T @ part[:, d]))
        out[g] = models[-1] @ models[-1]
        unused = np.append(unused - drawn[1:], rows[g + 1 : g + 2])

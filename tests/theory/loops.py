"""Loops of least squares that materialise every row and know no formula; shape (runs, generations)."""

import numpy as np


def fit(x, y, *, ridge=0.0, weight=None):
    xt = x.transpose(0, 2, 1) if weight is None else x.transpose(0, 2, 1) * weight
    return np.linalg.solve(xt @ x + ridge * np.eye(x.shape[2]), xt @ y[..., None])[..., 0]


def labelled(rng, runs, rows, w, s):
    """`rows` fresh rows for each run, labelled by w of shape (runs, d)."""
    x = rng.standard_normal((runs, rows, w.shape[-1]))
    return x, np.einsum("rnd,rd->rn", x, w) + s * rng.standard_normal((runs, rows))


def truth(runs, d, signal=0.0):
    w = np.zeros((runs, d))
    w[:, 0] = np.sqrt(signal)
    return w


def accumulate(rng, runs, d, T, s, *, ridge=0.0, signal=0.0):
    star = w = truth(runs, d, signal)
    xs, ys, errors = [], [], []
    for rows, noise in zip(T, s, strict=True):
        x, y = labelled(rng, runs, rows, w, noise)
        xs.append(x)
        ys.append(y)
        w = fit(np.concatenate(xs, 1), np.concatenate(ys, 1), ridge=ridge)
        errors.append(((w - star) ** 2).sum(1))
    return np.stack(errors, 1)


def replace(rng, runs, d, T, s):
    star = w = truth(runs, d)
    errors = []
    for rows, noise in zip(T, s, strict=True):
        w = fit(*labelled(rng, runs, rows, w, noise))
        errors.append(((w - star) ** 2).sum(1))
    return np.stack(errors, 1)


def pooled(rng, runs, d, T, n, keep):
    """Every row ever made; a fit takes T: "subsample", drawn anew; "reservoir", of the rows held last time and some fresh ones."""
    w, errors = truth(runs, d), []
    x, y = labelled(rng, runs, T, w, 1.0)
    held = np.tile(np.arange(T), (runs, 1))
    for g in range(n):
        if g:
            new = labelled(rng, runs, T, w, 1.0)
            x, y = np.concatenate([x, new[0]], 1), np.concatenate([y, new[1]], 1)
            if keep == "subsample":
                held = rng.random((runs, x.shape[1])).argsort(1)[:, :T]
            else:
                entering = rng.hypergeometric(T, g * T, T, runs)[:, None] > np.arange(T)
                fresh = g * T + rng.random((runs, T)).argsort(1)
                held = np.where(entering, fresh, np.take_along_axis(held, rng.random((runs, T)).argsort(1), 1))
        at = np.arange(runs)[:, None]
        w = fit(x[at, held], y[at, held])
        errors.append((w**2).sum(1))
    return np.stack(errors, 1)

"""A detector of synthetic rows: logistic regression between real and sampled rows, on features that any column has.

For filters (`World.score("detector", rows, model=...)`). It needs no labels beyond who wrote a row, and its own errors are part of
what a study measures: a weak detector filters weakly.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from refeed.core.rows import Ragged, Rows

BUCKETS = 1024  # hashed single values and pairs of neighbours of a sequence
PROJECTED = 128  # directions that a wide column, such as an image, is projected on
LEARNS_FROM = 20_000  # rows of each kind and fold, evenly spaced
PENALTY = 0.2  # ridge on standardised features: this times features over rows


def log_odds_real(real: Rows, sampled: Rows) -> np.ndarray:
    """log(P(real | row) / P(synthetic | row)) at even prior odds, for every sampled row: (rows,).

    Cross-fitted: even positions are judged by a detector that was trained on odd ones, and the other way round, so no row is
    judged by a detector that saw it. Deterministic in the rows.
    """
    of_real, of_sampled = features(real), features(sampled)
    result = np.zeros(len(sampled))
    for fold in (0, 1):
        positive, negative = _thinned(of_real[1 - fold :: 2]), _thinned(of_sampled[1 - fold :: 2])
        if not len(positive) or not len(negative):
            continue  # a single row: nothing to learn from, even odds
        both = np.concatenate([positive, negative])
        centre, spread = both.mean(axis=0), both.std(axis=0)
        spread[spread == 0] = 1.0
        weights = _fit((both - centre) / spread, len(positive))
        judged = (of_sampled[fold::2] - centre) / spread
        result[fold::2] = judged @ weights[1:] + weights[0]
    return result


def features(rows: Rows) -> np.ndarray:
    """(rows, features) float64 of all columns but refeed's own.

    A sequence gives its log length and the square roots of the shares of its values and of its pairs of neighbours, hashed into
    buckets; numbers give themselves, their squares and, up to 16 of them, their products; wider columns are projected at random
    first, in fixed directions.
    """
    found = [np.zeros((len(rows), 0))]
    numbers = [np.zeros((len(rows), 0))]
    for name in rows.names:
        if name.startswith("refeed_"):
            continue
        column = rows[name]
        if isinstance(column, Ragged):
            found.append(_of_sequences(column))
        else:
            numbers.append(_narrowed(np.asarray(column, dtype=np.float64).reshape(len(rows), -1)))
    flat = np.concatenate(numbers, axis=1)
    if flat.shape[1] <= 16:
        first, second = np.triu_indices(flat.shape[1])
        return np.concatenate([*found, flat, flat[:, first] * flat[:, second]], axis=1)
    return np.concatenate([*found, flat, flat**2], axis=1)


def _of_sequences(column: Ragged) -> np.ndarray:
    result = np.zeros((len(column), 2 * BUCKETS + 1))
    row = np.repeat(np.arange(len(column)), column.lengths)
    values = np.ascontiguousarray(column.values).reshape(len(row), -1)
    codes = _mixed(values[:, 0].astype(np.int64).view(np.uint64))
    for further in range(1, values.shape[1]):
        codes = _mixed(codes ^ values[:, further].astype(np.int64).view(np.uint64))
    np.add.at(result, (row, (codes % np.uint64(BUCKETS)).astype(np.int64)), 1.0)
    inside = row[1:] == row[:-1]
    pairs = _mixed(codes[1:] + np.uint64(3) * codes[:-1])[inside]
    np.add.at(result, (row[1:][inside], BUCKETS + (pairs % np.uint64(BUCKETS)).astype(np.int64)), 1.0)
    lengths = np.maximum(column.lengths, 1)
    result[:, :-1] = np.sqrt(result[:, :-1] / lengths[:, None])
    result[:, -1] = np.log(lengths)
    return result


def _mixed(codes: np.ndarray) -> np.ndarray:
    """A hash of 64-bit codes: one multiplication and one shift spread neighbours over the buckets."""
    codes = codes * np.uint64(0x9E3779B97F4A7C15)
    return codes ^ (codes >> np.uint64(29))


def _narrowed(flat: np.ndarray) -> np.ndarray:
    if flat.shape[1] <= PROJECTED:
        return flat
    directions = np.random.Generator(np.random.PCG64(0)).standard_normal((flat.shape[1], PROJECTED))
    return flat @ (directions / np.sqrt(flat.shape[1]))


def _thinned(values: np.ndarray) -> np.ndarray:
    return values if len(values) <= LEARNS_FROM else values[np.linspace(0, len(values) - 1, LEARNS_FROM).astype(np.int64)]


def _fit(values: np.ndarray, num_real: int) -> np.ndarray:
    """Intercept and coefficients of ridge logistic regression, real rows first; both kinds weigh the same in total."""
    sign = np.where(np.arange(len(values)) < num_real, 1.0, -1.0)
    penalty = PENALTY * values.shape[1] / len(values)
    share = np.where(sign > 0, 0.5 / num_real, 0.5 / (len(values) - num_real))

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (values @ weights[1:] + weights[0])
        slope = -share * sign * expit(-margin)
        gradient = np.concatenate([[slope.sum()], values.T @ slope + penalty * weights[1:]])
        return float(share @ np.logaddexp(0.0, -margin) + penalty / 2 * weights[1:] @ weights[1:]), gradient

    found = minimize(loss, np.zeros(values.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return np.asarray(found.x)

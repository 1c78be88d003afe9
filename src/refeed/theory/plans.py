"""Plans before a GPU-hour is spent: what each policy costs in error, the best schedule of a budget, and how much must stay real.

Errors are excess errors in units of the first model's, s^2 d/(R-d-1) for R real rows: 1 is what real data alone gives.
`dimension` is the number of parameters that the data determine; exact laws of least squares are used where there are any,
classical ones (many more rows than parameters) elsewhere, and each number says which.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from refeed.theory.compositions import composition, forgetting, pinned_reservoir, strata
from refeed.theory.compositions import real_share as share_of_real
from refeed.theory.mean import accumulate_subsample, reservoir, window
from refeed.theory.registry import require
from refeed.theory.regression import accumulate, replace
from refeed.theory.regression_fixed_real import fixed_real
from refeed.theory.regression_fresh import fresh, fresh_best_weight, fresh_cost_rule, fresh_factor, fresh_weighted_asymptotic

Budget = Literal["generated", "compute", "storage"]
BUDGETS: tuple[Budget, ...] = ("generated", "compute", "storage")
Batches = Sequence[float] | np.ndarray


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What a policy leads to: the error by generation, and what it takes at the end."""

    policy: str
    error: np.ndarray  # by generation, in units of generation 1
    kind: str
    stored: float  # rows kept after the last generation
    generated: float  # synthetic rows in all
    trained: float  # rows fitted in all generations together
    note: str = ""


def outlooks(
    *, real: int, rows: int, generations: int, dimension: int = 1, storage: int | None = None, window_of: int = 3
) -> list[Outlook]:
    """Every policy for `rows` synthetic rows a generation, best last error first, but those that keep more than `storage` rows."""
    _check(real, rows, generations, dimension)
    n, d = generations, dimension
    batches = np.array([real] + [rows] * (n - 1), dtype=float)
    together = np.array([real] + [real + rows] * (n - 1), dtype=float)
    found = [*_exact(batches, d), *_beside_real(batches, d, together), *_mean_models(batches, d, storage, window_of)]
    if np.log2(real) + n < 50:  # beyond that nobody doubles
        doubled = np.array([real, *(real * 2.0 ** np.arange(n - 1))])
        error = accumulate(d=d, T=doubled, n=n) / (d / (real - d - 1))
        found.append(_outlook("growing (2-fold)", error, "exact", doubled, np.cumsum(doubled), float(doubled.sum())))
    found.append(Outlook(policy="real-only", error=np.ones(n), kind="exact", stored=real, generated=0, trained=float(n * real)))
    fitting = [outlook for outlook in found if storage is None or outlook.stored <= storage]
    return sorted(fitting, key=lambda outlook: outlook.error[-1])


def _outlook(
    policy: str, error: np.ndarray, kind: str, batches: np.ndarray, trained: np.ndarray, stored: float, note: str = ""
) -> Outlook:
    made, work = float(batches[1:].sum()), float(trained.sum())
    return Outlook(policy=policy, error=error, kind=kind, stored=stored, generated=made, trained=work, note=note)


def _exact(batches: np.ndarray, d: int) -> Iterator[Outlook]:
    """Replace, replace-multiple and accumulate, by the laws of least squares."""
    n, pool, base = len(batches), np.cumsum(batches), d / (batches[0] - d - 1)
    if batches.min() >= d + 2:
        yield _outlook("replace", replace(d=d, T=batches, n=n) / base, "exact", batches, batches, float(batches[-1]))
    yield _outlook("replace-multiple", replace(d=d, T=pool, n=n) / base, "exact", pool, pool, float(pool[-1]))
    yield _outlook("accumulate", accumulate(d=d, T=batches, n=n) / base, "exact", batches, pool, float(pool[-1]))


def _beside_real(batches: np.ndarray, d: int, together: np.ndarray) -> Iterator[Outlook]:
    """The latest synthetic rows beside real ones: the same ones, or fresh ones every generation, weighted or not."""
    real, n = float(batches[0]), len(batches)
    rows = float(batches[1]) if n > 1 else real
    sizes, base, kept = {"n_real": real, "n_synthetic": rows, "n": n}, d / (real - d - 1), real + rows
    yield _outlook("fixed-real", fixed_real(d=1, **sizes) * real, "classical limit", batches, together, kept)
    note = "takes new real rows every generation"
    yield _outlook("fresh-real", fresh(d=d, T1=real, **sizes) / base, "exact", batches, together, kept, note)
    w = fresh_best_weight(ratio=real / rows)
    error = fresh_weighted_asymptotic(d=d, T1=real, w=w, **sizes) / base
    yield _outlook("weighted-fresh-real", error, "asymptotic", batches, together, kept, note)


def _mean_models(batches: np.ndarray, d: int, storage: int | None, window_of: int) -> Iterator[Outlook]:
    """Windows, subsamples, reservoirs and shares: by the mean model, which is least squares with many more rows than parameters."""
    n, pool, real = len(batches), np.cumsum(batches), float(batches[0])
    kind = "classical limit"
    seen = np.array([batches[max(0, g - window_of + 1) : g + 1].sum() for g in range(n)])
    error = window(T=batches, K=window_of, n=n) * real
    yield _outlook(f"window ({window_of} generations)", error, kind, batches, seen, float(seen[-1]))

    def composed(policy: str, counts: np.ndarray, stored: float | None = None, note: str = "") -> Outlook:
        error = composition(counts=counts, T=batches, again=stored is not None) * real
        fitted = counts.sum(axis=1)
        return _outlook(policy, error, kind, batches, fitted, float(fitted[-1]) if stored is None else stored, note)

    yield composed("forgetting (half survive)", forgetting(batches, 0.5))
    yield composed("real-share (half)", share_of_real(batches, 0.5), float(pool[-1]))
    yield composed("real-share-floor (half)", share_of_real(batches, 0.5, floor=True), float(pool[-1]))
    room = real if storage is None else min(real, storage - real)
    if room >= 1:
        yield composed("pinned-reservoir", pinned_reservoir(batches, room))
    cap = int(min(batches[: 2 if n > 1 else 1].min(), np.inf if storage is None else storage))
    if cap >= 2:
        unstable = f"unstable: more than half as many parameters as rows ({d} to {cap})" if 2 * d > cap else ""
        fitted = np.full(n, float(cap))
        error = accumulate_subsample(T=batches, M=cap, n=n) * real
        yield _outlook("accumulate-subsample", error, kind, batches, fitted, float(pool[-1]), unstable)
        yield _outlook("reservoir", reservoir(T=batches, M=cap, n=n) * real, kind, batches, fitted, float(cap), unstable)
        yield composed("strata", strata(batches, cap), note=unstable)


def _check(real: float, rows: float, generations: int, dimension: int) -> None:
    require(dimension >= 1 and real >= dimension + 2, f"real >= dimension + 2 is needed, not {real:g} rows for {dimension}")
    require(rows >= 1 and generations >= 1, f"rows and generations must be at least 1, not {rows:g} and {generations}")


def schedule_error(batches: Batches, *, dimension: int = 1) -> float:
    """The last error of accumulating these batches (the first one real), in units of generation 1."""
    sizes = np.asarray(batches, dtype=float)
    curve = accumulate(d=dimension, T=sizes, n=len(sizes))
    return float(curve[-1] / curve[0])


def spending(batches: Batches, budget: Budget) -> float:
    """What a schedule uses: synthetic rows made, rows trained on over all generations, or rows stored at the end."""
    pool = np.cumsum(np.asarray(batches, dtype=float))
    return float({"generated": pool[-1] - pool[0], "compute": pool.sum(), "storage": pool[-1]}[budget])


def best_schedule(
    *, real: int, generations: int, budget: Budget, limit: float, minimum: int = 1, dimension: int = 1, spend_all: bool = False
) -> np.ndarray:
    """The batches (real rows first) that accumulate with the least last error, at least `minimum` synthetic rows a generation.

    "generated": synthetic rows in all (with `spend_all` exactly that many); "compute": rows trained on, sum N_i; "storage": N_n.

    The error sum T_i f(N_i), f(N) = 1/(N(N-d-1)), rises, then falls in every interior N_i, so the best has the minimum in all
    generations but one. Every place for that one is tried, with every whole size up to 2,000 and a fine grid above. Brute force
    agrees on small cases (tests/theory).
    """
    _check(real, minimum, generations, dimension)
    if generations == 1:
        return np.array([real])
    least = np.array([real] + [minimum] * (generations - 1))
    spare = limit - spending(least, budget)
    require(
        spare >= 0,
        f"the {budget} budget of {limit:g} rows is below {spending(least, budget):g}, what the minimum a generation takes",
    )
    best, least_error = least, schedule_error(least, dimension=dimension)
    if spend_all:
        require(budget == "generated", "spend_all is for the budget of generated rows")
        least_error = np.inf
    for place in range(1, generations):
        rows_each = generations - place if budget == "compute" else 1  # how often one more row there is paid for
        most = int(spare // rows_each)
        sizes = np.unique(np.concatenate([np.arange(min(most, 2000) + 1), np.geomspace(1, most + 1, 2000).astype(int) - 1]))
        for extra in [most] if spend_all else _promising(real, minimum, generations, place, sizes, dimension):
            tried = least.copy()
            tried[place] += int(extra)
            error = schedule_error(tried, dimension=dimension)
            if error < least_error - 1e-15:
                best, least_error = tried, error
    return best


def _promising(real: int, minimum: int, generations: int, place: int, sizes: np.ndarray, d: int) -> np.ndarray:
    """Of all extra sizes at `place`, the best one; all tried at once."""
    batches = np.full((len(sizes), generations), float(minimum))
    batches[:, 0] = real
    batches[:, place] += sizes
    pool = np.cumsum(batches, axis=1)
    return sizes[[np.argmin((batches / (pool * (pool - d - 1))).sum(axis=1))]]


@dataclass(frozen=True, kw_only=True)
class RealShare:
    """How much must stay real, by three rules."""

    stream: float  # of an endless accumulating stream, to keep learning at the rate of real data
    pooled: float  # of the rows fitted together with fresh real ones, for the error to stay bounded
    bought: float | None  # of a budget when a real row costs `cost_ratio` synthetic ones
    gain: float | None  # by how much that purchase beats real rows alone


def real_share(*, fitted: int, dimension: int = 1, cost_ratio: float | None = None) -> RealShare:
    """The least share of real rows: in a stream, in a fit of `fitted` rows of which the real ones are fresh, and for money."""
    require(fitted >= dimension + 2, f"fitted >= dimension + 2 is needed, not {fitted} rows for {dimension}")
    low, high = 0, fitted  # real rows: at 0 the factor is 1, and it falls below 1 from some number on
    while low < high:
        middle = (low + high) // 2
        if fresh_factor(d=dimension, n_real=middle, n_synthetic=fitted - middle) < 1 - 1e-12:
            high = middle
        else:
            low = middle + 1
    bought = gain = None
    if cost_ratio is not None:
        _, ratio, value = fresh_cost_rule(cost_ratio=cost_ratio)
        bought, gain = float(1 / (1 + ratio)), float(cost_ratio / value)
    return RealShare(stream=0.5, pooled=low / fitted, bought=bought, gain=gain)

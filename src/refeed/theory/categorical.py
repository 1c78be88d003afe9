"""Categorical distributions refitted on their own draws: Wright-Fisher chains, the symbols that survive, the mass that is lost.

T draws a generation; the model is the vector of observed frequencies. Symbols are given as `p`, or as a Zipf law p_k
proportional to k^-beta over num_symbols of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import gamma, gammaln, xlog1py, xlogy, zeta

from refeed.theory.registry import law, require
from refeed.theory.schedules import Generations, Schedule, at, by_generation, horizon

LARGEST = 20_000  # draws for the exact chain: N^2 work a generation
BLOCK = 2**22  # entries of a transition matrix in memory at once


def probabilities(p: Sequence[float] | None, num_symbols: int | None, beta: float | None) -> np.ndarray:
    """The distribution asked for; beta = 0 is uniform."""
    if p is not None:
        array = np.asarray(p, dtype=float)
        require(
            array.ndim == 1 and bool((array >= 0).all()) and abs(array.sum() - 1) < 1e-9, "p must be probabilities that sum to 1"
        )
        return array
    require(num_symbols is not None and beta is not None, "give p, or num_symbols and beta of a Zipf law")
    require(int(num_symbols or 0) >= 1, f"num_symbols must be at least 1, not {num_symbols}")
    weights = np.arange(1.0, int(num_symbols or 0) + 1) ** -float(beta or 0.0)
    return weights / weights.sum()


def _whole(rows: np.ndarray) -> None:
    require(
        bool((rows >= 1).all() and (rows == np.round(rows)).all()),
        f"T must be a whole number of draws, at least 1, not {rows.min():g}",
    )


@law("categorical.heterozygosity_replace", kind="exact")
def heterozygosity_replace(*, T: Schedule, n: Generations = None) -> np.ndarray:
    """E of 1 - sum p_k^2 at generation n under replace, in units of the truth's: prod (1 - 1/T_i).

    Exact: two of the T draws share a parent with probability 1/T (Wright-Fisher).
    """
    rows = by_generation(T, horizon(n, T))
    require(bool((rows >= 1).all()), f"T must be at least 1, not {rows.min():g}")
    return at(np.cumprod(1 - 1 / rows), n)


@law("categorical.survivors", kind="exact")
def survivors(
    *,
    T: Schedule,
    n: Generations = None,
    num_symbols: int | None = None,
    beta: float | None = None,
    p: Sequence[float] | None = None,
) -> np.ndarray:
    """E of the number of symbols still alive at generation n under replace.

    Exact: the counts of all symbols together, as a measure on 0..T, are pushed through the binomial chain. O(T^2) a generation.
    """
    rows = by_generation(T, horizon(n, T))
    _whole(rows)
    require(
        rows.max() <= LARGEST,
        f"T <= {LARGEST} is needed for the exact chain, not {rows.max():g}; use categorical.survivors_branching",
    )
    truth = probabilities(p, num_symbols, beta)
    curve = np.empty(len(rows))
    at_states, measure = truth, np.ones(len(truth))
    for i, draws in enumerate(rows.astype(int)):
        measure = _push(measure, at_states, draws)
        at_states = np.arange(draws + 1) / draws
        curve[i] = measure[1:].sum()
    return at(curve, n)


def _push(measure: np.ndarray, share: np.ndarray, draws: int) -> np.ndarray:
    """The expected number of symbols with 0..draws counts, when `measure` symbols have each `share`; block by block."""
    kept = (measure > 1e-300) & (share > 0)
    measure, share = measure[kept], share[kept]
    counts = np.arange(draws + 1.0)
    chosen = gammaln(draws + 1) - gammaln(counts + 1) - gammaln(draws - counts + 1)
    result = np.zeros(draws + 1)
    size = max(1, BLOCK // (draws + 1))
    for start in range(0, len(share), size):
        x = share[start : start + size, None]
        result += measure[start : start + size] @ np.exp(chosen + xlogy(counts, x) + xlog1py(draws - counts, -x))
    return result


@law("categorical.branching_survival", kind="exact")
def branching_survival(*, n: Generations) -> np.ndarray:
    """pi_n: the probability that a Poisson(1) branching process lives to generation n; pi_1 = 1, pi_{n+1} = 1 - exp(-pi_n),
    about 2/n.

    Exact. n generations of replace keep a rare symbol as one real sample of size T pi_n would.
    """
    curve = np.ones(horizon(n))
    for g in range(1, len(curve)):
        curve[g] = -np.expm1(-curve[g - 1])
    return at(curve, n)


def _kept(T: Schedule, n: Generations) -> np.ndarray:
    """T_1 times the probability that one draw of generation 1 has descendants at generation n; T pi_n for equal T.

    Backwards from generation n: a_n = 1, a_i = 1 - exp(-(T_{i+1}/T_i) a_{i+1}), since a draw has Poisson(T_{i+1}/T_i) children.
    """
    last = horizon(n, T)
    rows = by_generation(T, last)
    require(bool((rows > 0).all()), f"T must be positive for the branching limit, not {rows.min():g}")
    if np.ndim(T) == 0:
        return rows[0] * branching_survival(n=last if n is None else n)
    curve = np.ones(last)
    for g in range(1, last):
        for i in range(g - 1, -1, -1):
            curve[g] = -np.expm1(-rows[i + 1] / rows[i] * curve[g])
    return at(rows[0] * curve, n)


@law("categorical.survivors_branching", kind="asymptotic")
def survivors_branching(
    *,
    T: Schedule,
    n: Generations = None,
    num_symbols: int | None = None,
    beta: float | None = None,
    p: Sequence[float] | None = None,
) -> np.ndarray:
    """E of the number of symbols alive at generation n under replace, for many rare symbols: sum_k 1 - exp(-T p_k pi_n).

    Asymptotic (T large, every p_k small): each draw founds an independent Poisson(1) branching process. Within 1.5 % at T = 100.
    """
    truth = probabilities(p, num_symbols, beta)
    return -np.expm1(-np.multiply.outer(_kept(T, n), truth)).sum(axis=1)


@law("categorical.missing_mass_branching", kind="asymptotic")
def missing_mass_branching(
    *,
    T: Schedule,
    n: Generations = None,
    num_symbols: int | None = None,
    beta: float | None = None,
    p: Sequence[float] | None = None,
) -> np.ndarray:
    """E of the true probability of all symbols that are lost at generation n under replace: sum_k p_k exp(-T p_k pi_n).

    Asymptotic, as categorical.survivors_branching.
    """
    truth = probabilities(p, num_symbols, beta)
    return np.exp(-np.multiply.outer(_kept(T, n), truth)) @ truth


@law("categorical.survivors_accumulate", kind="exact")
def survivors_accumulate(
    *, T: float, num_symbols: int | None = None, beta: float | None = None, p: Sequence[float] | None = None
) -> float:
    """E of the number of symbols alive under accumulate: sum_k 1 - (1 - p_k)^T, at every generation, T the real draws.

    Exact: what was drawn once is kept for ever, and what was not never comes back.
    """
    require(T >= 1, f"T must be at least 1, not {T}")
    truth = probabilities(p, num_symbols, beta)
    return float(-np.expm1(xlog1py(T, -truth)).sum())


@law("categorical.zipf_support", kind="asymptotic")
def zipf_support(*, beta: float, T: Schedule, n: Generations = None) -> np.ndarray:
    """E of the number of symbols alive at generation n under replace, infinitely many with p_k = c k^-beta.

    Gamma(1 - 1/beta) (c T pi_n)^(1/beta), c = 1/zeta(beta). Asymptotic, T -> infinity: the branching sum as an integral.
    """
    require(beta > 1, f"beta > 1 is needed for an infinite Zipf law, not {beta}")
    return gamma(1 - 1 / beta) * (_kept(T, n) / zeta(beta)) ** (1 / beta)


@law("categorical.zipf_missing_mass", kind="asymptotic")
def zipf_missing_mass(*, beta: float, T: Schedule, n: Generations = None) -> np.ndarray:
    """E of the true probability of the lost symbols at generation n under replace, infinitely many with p_k = c k^-beta.

    (c^(1/beta)/beta) Gamma(1 - 1/beta) (T pi_n)^-(1 - 1/beta). Asymptotic, T -> infinity; the exponent of Dohmatob et al.
    (arXiv:2402.07043) with T pi_n for T.
    """
    require(beta > 1, f"beta > 1 is needed for an infinite Zipf law, not {beta}")
    exponent = 1 - 1 / beta
    return zeta(beta) ** (-1 / beta) / beta * gamma(exponent) * _kept(T, n) ** -exponent

"""How fast an error grows, place by place: the map of policies over d/T and generations.

The regime at generation n is read off two doublings: (err_4n - err_2n) / (err_2n - err_n) is 1/2 for an error that settles like
accumulate's, 1 for log n, 2 for n, and more for what grows faster (exponentially in the fresh-data loop past its instability; the
history mixture past its own grows as n^(kappa-1)). The edges between them are .85, 1.4 and 2.8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from refeed.theory.mean import reservoir, window
from refeed.theory.regression import accumulate, replace, replace_multiple
from refeed.theory.regression_fixed_real import fixed_real_asymptotic
from refeed.theory.regression_fresh import fresh, history_mixture

REGIMES = ("bounded", "logarithmic", "linear", "faster")
OPEN = "cannot say"  # of measured growth that the scatter of the lineages hides
EDGES = (0.85, 1.4, 2.8)
SETTLED = 1e-3  # of the error: growth below it over a doubling is none

Curve = Callable[[int, int, int], np.ndarray]  # d, T, n -> errors of generations 1..n

CURVES: dict[str, tuple[str, Curve]] = {
    "accumulate": ("exact", lambda d, T, n: accumulate(d=d, T=T, n=n)),
    "fixed-real": ("asymptotic", lambda d, T, n: fixed_real_asymptotic(d=d, n_real=T, n_synthetic=T, n=n)),
    "fresh-real": ("exact", lambda d, T, n: fresh(d=d, n_real=T, n_synthetic=T, T1=T, n=n)),
    "fresh-real, T rows in all": ("exact", lambda d, T, n: fresh(d=d, n_real=T / 2, n_synthetic=T / 2, n=n)),
    "accumulate-subsample": ("exact, as a history mixture", lambda d, T, n: history_mixture(d=d, M=T, n=n)),
    "replace-multiple": ("exact", lambda d, T, n: replace_multiple(d=d, T=T, n=n)),
    "reservoir": ("classical limit", lambda d, T, n: d * reservoir(T=T, M=T, n=n)),
    "window (generations 3)": ("classical limit", lambda d, T, n: d * window(T=T, K=3, n=n)),
    "replace": ("exact", lambda d, T, n: replace(d=d, T=T, n=n)),
}
INSTABILITIES = {"fresh-real, T rows in all": 0.75, "accumulate-subsample": 0.5}  # d/T, rows many


def regime(now: float, doubled: float, again: float) -> str:
    """The regime of a curve that goes from `now` to `doubled` and on to `again` while the generations double twice."""
    if not np.isfinite(again):
        return "faster"
    if doubled - now <= SETTLED * now:
        return "bounded"
    return REGIMES[int(np.searchsorted(EDGES, (again - doubled) / (doubled - now)))]


def measured_regime(now: np.ndarray, doubled: np.ndarray, again: np.ndarray) -> str:
    """The regime of measured errors, one entry a lineage, at generations n, 2n and 4n; "cannot say" where two standard errors of
    the ratio of increments reach into another regime, unless all growth is below a tenth of the error."""
    first, second, count = doubled - now, again - doubled, len(now)
    if count < 2 or not np.isfinite(again).all():
        return OPEN

    def spread(values: np.ndarray) -> float:
        return float(values.std(ddof=1) / np.sqrt(count))

    if (first + second).mean() + 2 * spread(first + second) < 0.1 * now.mean():
        return "bounded"
    if first.mean() < 3 * spread(first):
        return OPEN
    ratio = second.mean() / first.mean()
    error = 2 * spread(second - ratio * first) / first.mean()
    low, high = np.searchsorted(EDGES, [ratio - error, ratio + error])
    return REGIMES[int(low)] if low == high else OPEN


def growth_map(
    *, T: int = 200, shares: Sequence[float], generations: Sequence[int], policies: Sequence[str] = tuple(CURVES)
) -> list[dict[str, float | str]]:
    """One entry for each policy, d/T of `shares` and generation: the regime there, and the error in units of generation 1."""
    entries: list[dict[str, float | str]] = []
    last = 4 * max(generations)
    for policy in policies:
        kind, curve = CURVES[policy]
        for share in shares:
            d = max(1, min(round(share * T), T - 2))
            errors = curve(d, T, last)
            for n in generations:
                entries.append(
                    {
                        "policy": policy,
                        "kind": kind,
                        "share": share,
                        "generation": n,
                        "regime": regime(*errors[[n - 1, 2 * n - 1, 4 * n - 1]]),
                        "ratio": float(errors[n - 1] / errors[0]),
                    }
                )
    return entries

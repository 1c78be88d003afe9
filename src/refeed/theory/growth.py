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
EDGES = (0.85, 1.4, 2.8)
SETTLED = 1e-3  # of the error: growth below it over a doubling is none

Curve = Callable[[int, int, int], np.ndarray]  # d, T, n -> errors of generations 1..n

CURVES: dict[str, tuple[str, Curve]] = {
    "accumulate": ("exact", lambda d, T, n: accumulate(d=d, T=T, n=n)),
    "fixed real + latest": ("asymptotic", lambda d, T, n: fixed_real_asymptotic(d=d, n_real=T, n_synthetic=T, n=n)),
    "fresh real + latest, half and half": ("exact", lambda d, T, n: fresh(d=d, n_real=T / 2, n_synthetic=T / 2, n=n)),
    "history mixture (accumulate-subsample)": ("exact", lambda d, T, n: history_mixture(d=d, M=T, n=n)),
    "replace-multiple": ("exact", lambda d, T, n: replace_multiple(d=d, T=T, n=n)),
    "reservoir": ("classical limit", lambda d, T, n: d * reservoir(T=T, M=T, n=n)),
    "window of 3": ("classical limit", lambda d, T, n: d * window(T=T, K=3, n=n)),
    "replace": ("exact", lambda d, T, n: replace(d=d, T=T, n=n)),
}
INSTABILITIES = {"fresh real + latest, half and half": 0.75, "history mixture (accumulate-subsample)": 0.5}  # d/T, rows many


def regime(now: float, doubled: float, again: float) -> str:
    """The regime of a curve that goes from `now` to `doubled` and on to `again` while the generations double twice."""
    if not np.isfinite(again):
        return "faster"
    if doubled - now <= SETTLED * now:
        return "bounded"
    return REGIMES[int(np.searchsorted(EDGES, (again - doubled) / (doubled - now)))]


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

"""How well forecasts cover: lineages whose end is known are forecast from their first generations, the policy told and not told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from refeed.theory.forecast import LEVELS, POLICIES, forecasts
from refeed.theory.registry import require

ALLOWED = 0.03  # away from nominal that counts as calibrated


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One forecast whose truth is known. `rank`: the share of draws below the truth, uniform over trials if all is right."""

    told: bool
    rank: float
    miss: float  # |median - truth|
    width: float  # of the 80 % interval
    decision: str

    def inside(self, level: float) -> bool:
        return abs(self.rank - 0.5) <= level / 2


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Of several trials: the share of truths inside the intervals, by level, with the standard error if it were nominal."""

    trials: int
    shares: dict[float, float]
    errors: dict[float, float]
    miss: float  # medians over trials
    width: float
    decisions: dict[str, float]  # the share of each, most frequent first

    @property
    def calibrated(self) -> dict[float, bool]:
        """Within three points of nominal, by level."""
        return {level: abs(share - level) <= ALLOWED + 1e-9 for level, share in self.shares.items()}


def trial(curves: np.ndarray, *, observe: int, to: int, policy: str | None, seed: int = 0) -> list[Trial]:
    """Forecast generation `to` from the first `observe` ones; curves of shape (generations,) or (lineages, generations).

    Two trials, the policy told and not told; one where no growth shape is known for it.
    """
    every = np.atleast_2d(np.asarray(curves, dtype=float))
    require(observe < to <= every.shape[1], f"observe < to <= {every.shape[1]} generations is needed, not {observe} and {to}")
    truth = float(every[:, to - 1].mean())
    names = [policy, None] if policy in POLICIES else [None]
    found = []
    for name, made in zip(names, forecasts(every[:, :observe], to=to, policies=names, seed=seed), strict=True):
        last = made.draws[:, -1]
        low, high = np.quantile(last, [0.1, 0.9])
        found.append(
            Trial(
                told=name is not None,
                rank=float((last < truth).mean()),
                miss=abs(float(np.median(last)) - truth),
                width=float(high - low),
                decision=made.decision,
            )
        )
    return found


def coverage(trials: Sequence[Trial]) -> Coverage:
    """How often the truth lies inside the intervals."""
    require(len(trials) > 0, "there is no trial to judge")
    counts = Counter(trial.decision for trial in trials)
    return Coverage(
        trials=len(trials),
        shares={level: float(np.mean([trial.inside(level) for trial in trials])) for level in LEVELS},
        errors={level: float(np.sqrt(level * (1 - level) / len(trials))) for level in LEVELS},
        miss=float(np.median([trial.miss for trial in trials])),
        width=float(np.median([trial.width for trial in trials])),
        decisions={name: count / len(trials) for name, count in counts.most_common()},
    )

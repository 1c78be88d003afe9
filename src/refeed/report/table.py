"""The short table: per case and policy, where the headline quantity started, where it ended, and what theory says."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from refeed.report.overlay import last_generation, theory
from refeed.report.results import Results
from refeed.report.statistics import Estimate, paired_ratio


@dataclass(frozen=True, kw_only=True)
class Row:
    """One case and policy. `change` is the ratio last / generation 1, paired by seed (a difference if not all positive).

    `first` and `last` are means over lineages, `theory` the law's value at `generation`; None where there is none.
    """

    case: str
    policy: str
    quantity: str
    unit: str
    generation: int  # the last one measured
    planned: int
    first: float | None
    last: float | None
    change: Estimate | None
    theory: float | None
    theory_kind: str
    outcomes: dict[str, int]  # lineages by outcome

    @property
    def num_early(self) -> int:
        return sum(n for outcome, n in self.outcomes.items() if outcome != "completed")


def summary_rows(results: Results) -> list[Row]:
    """The rows of the short table, in the order of the study."""
    outcomes: dict[tuple[str, str], Counter[str]] = {}
    for row in results.outcomes.to_pylist():
        outcomes.setdefault((row["case"], row["policy"]), Counter())[row["outcome"]] += 1
    return [
        _row(results, case, policy, dict(outcomes.get((case, policy), {}))) for case in results.cases for policy in results.policies
    ]


def _row(results: Results, case: str, policy: str, outcomes: dict[str, int]) -> Row:
    quantity = results.headline(case)
    lineages = results.lineages(case, policy, quantity)
    planned = last_generation(results)
    last = lineages.last if lineages else 0
    law = theory(results, case, policy, quantity)
    start, end = (lineages.at(1), lineages.at(last)) if lineages else ({}, {})
    return Row(
        case=case,
        policy=policy,
        quantity=quantity,
        unit=results.quantities(case).get(quantity, {}).get("unit", "1"),
        generation=last,
        planned=planned,
        first=float(np.mean(list(start.values()))) if start else None,
        last=float(np.mean(list(end.values()))) if end else None,
        change=paired_ratio(end, start) if last > 1 else None,
        theory=law.values.get(last) if law else None,
        theory_kind=law.kind if law else "",
        outcomes=outcomes,
    )

"""What the figures draw beside the data: the curve of a law, and the reference of a quantity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from refeed.report.results import Results
from refeed.theory import TheoryError, evaluate, find


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """A law's value by generation, or why there is none."""

    law: str
    kind: str = ""
    summary: str = ""
    values: dict[int, float]
    problem: str = ""


def theory(results: Results, case: str, policy: str, quantity: str) -> Overlay | None:
    """The law that the study names for this quantity, evaluated up to the last generation; None where it names none.

    A law that does not exist or does not hold gives an overlay without values that says so: a report is never lost to it.
    """
    named = results.cases[case].get("laws", {}).get(policy, [])
    entry = next((entry for entry in named if entry["quantity"] == quantity), None)
    if entry is None:
        return None
    name, last = entry["law"], last_generation(results)
    try:
        law = find(name)
        given = dict(entry.get("parameters", {}))
        if "n" in law.parameters:
            given.setdefault("n", last)
        value = np.asarray(evaluate(name, **given), dtype=float)
    except (TheoryError, TypeError) as error:
        return Overlay(law=name, values={}, problem=f"{name} is not drawn: {error}")
    curve = np.full(last, float(value)) if value.ndim == 0 else value[:last]
    values = {generation: float(y) for generation, y in enumerate(curve, start=1) if np.isfinite(y)}
    return Overlay(law=name, kind=law.kind, summary=law.summary, values=values)


def reference(results: Results, case: str, quantity: str) -> dict[int, float]:
    """The mean of the quantity's reference by generation, over all lineages and policies; empty where it has none."""
    name = results.quantities(case).get(quantity, {}).get("reference", "")
    if not name:
        return {}
    collected: dict[int, list[float]] = {}
    for policy in results.policies:
        lineages = results.lineages(case, policy, name)
        for generation in lineages.generations if lineages else ():
            collected.setdefault(int(generation), []).extend(lineages.at(int(generation)).values())  # type: ignore[union-attr]
    return {generation: float(np.mean(values)) for generation, values in sorted(collected.items()) if values}


def reference_names(results: Results, case: str) -> set[str]:
    """Quantities that are only another one's reference; they are drawn there, not in a figure of their own."""
    described = results.quantities(case).values()
    return {quantity["reference"] for quantity in described if quantity["reference"]} | {
        quantity["name"] for quantity in described if quantity["role"] == "reference"
    }


def last_generation(results: Results) -> int:
    """The last generation of the study: as planned, or as measured where that is further."""
    measured = results.scores["generation"]
    top = max(measured.to_pylist(), default=1) if len(measured) < 1000 else int(np.max(measured.to_numpy()))
    return max(int(results.study.get("generations") or 1), int(top))

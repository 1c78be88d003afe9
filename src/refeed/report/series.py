"""Quantities that are points of one curve, drawn together: a line for each model, a panel for each policy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from refeed.report import theme
from refeed.report.overlay import reference
from refeed.report.results import Results

if TYPE_CHECKING:
    import altair as alt

MOST = 8  # generations drawn


@dataclass(frozen=True, kw_only=True)
class Series:
    """The quantities of a case that share a series, in order of their place along it."""

    name: str
    along: str
    unit: str
    places: dict[str, float]  # place along the axis by quantity


def series(results: Results, case: str) -> list[Series]:
    """What of a case's quantities belongs together."""
    found: dict[str, list[dict[str, Any]]] = {}
    for quantity in results.quantities(case).values():
        if quantity["series"]:
            found.setdefault(quantity["series"], []).append(quantity)
    return [
        Series(name=name, along=points[0]["along"], unit=points[0]["unit"], places={point["name"]: point["at"] for point in points})
        for name, points in found.items()
        if any(results.lineages(case, policy, point["name"]) for policy in results.policies for point in points)
    ]


def chart(results: Results, case: str, of: Series, *, width: int = 300, height: int = 200) -> alt.Chart:
    """Means over lineages: the series on the x axis, one line a generation from light to dark, and the same of real rows."""
    import altair as alt

    rows = list(_rows(results, case, of))
    generations = sorted({row["g"] for row in rows} - {0})
    chosen = np.unique(np.linspace(0, len(generations) - 1, min(MOST, len(generations))).astype(int))
    shown = {generations[i]: str(generations[i]) for i in chosen} | {0: "real"}
    rows = [row | {"g": shown[row["g"]]} for row in rows if row["g"] in shown]
    lines = [name for name in ("real", *shown.values()) if any(row["g"] == name for row in rows)]
    colours = dict(zip(["real", *(shown[generations[i]] for i in chosen)], theme.origin_colours(len(chosen)), strict=True))
    policies = [policy for policy in results.policies if any(row["p"] == policy for row in rows)]
    scale = alt.Scale(domain=list(dict.fromkeys(lines)), range=[colours[name] for name in dict.fromkeys(lines)])
    legend = alt.Legend(title="generation", titleColor=theme.MUTED, titleOrient="left", symbolType="stroke")
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("x:Q", title=of.along, scale=alt.Scale(zero=False, nice=False), axis=alt.Axis(tickCount=6)),
        y=alt.Y("y:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5)),
        color=alt.Color("g:N", scale=scale, legend=legend),
        tooltip=[
            alt.Tooltip("p:N", title="policy"),
            alt.Tooltip("g:N", title="generation"),
            alt.Tooltip("x:Q", title=of.along),
            alt.Tooltip("y:Q", title="mean", format=".4g"),
            alt.Tooltip("n:Q", title="lineages"),
        ],
    )
    layers = alt.layer(base.mark_line(strokeWidth=1.8), base.mark_point(filled=True, size=18, opacity=1))
    by_policy = alt.Facet("p:N", title=None, sort=policies)
    return layers.properties(width=width, height=height).facet(by_policy, columns=3, spacing=18)


def _rows(results: Results, case: str, of: Series) -> Iterator[dict[str, Any]]:
    """One row a point; generation 0 is the reference of a quantity, the same of real rows."""
    for policy in results.policies:
        for quantity, place in of.places.items():
            at = {"p": policy, "x": place}
            lineages = results.lineages(case, policy, quantity)
            if lineages is None:
                continue
            for generation in lineages.generations.tolist():
                if values := list(lineages.at(generation).values()):
                    yield at | {"g": generation, "y": float(f"{np.mean(values):.5g}"), "n": len(values)}
            if real := list(reference(results, case, quantity).values()):
                yield at | {"g": 0, "y": float(f"{np.mean(real):.5g}"), "n": len(lineages.seeds)}

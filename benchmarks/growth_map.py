"""Draws docs/theory/growth-map.svg: which policies are bounded, where, and for how long. Half a minute."""

from __future__ import annotations

from pathlib import Path

import altair as alt

from refeed.theory.growth import CURVES, INSTABILITIES, REGIMES, growth_map

SHARES = [round(0.02 + 0.04 * k, 2) for k in range(25)]
GENERATIONS = [1, 2, 4, 8, 16, 32, 64, 128, 256]
COLOURS = ["#3b7ea1", "#a9c9a4", "#f2c14e", "#c8553d"]


def chart() -> alt.Chart:
    entries = growth_map(shares=SHARES, generations=GENERATIONS)
    for entry in entries:
        entry |= {"left": entry["share"] - 0.02, "right": entry["share"] + 0.02}
    panels = []
    for policy, (kind, _) in CURVES.items():
        rows = [{**entry, "generation": f"{entry['generation']}"} for entry in entries if entry["policy"] == policy]
        base = alt.Chart(alt.Data(values=rows), width=230, height=170, title=alt.Title(policy, subtitle=kind, fontSize=12))
        cells = base.mark_rect().encode(
            x=alt.X("left:Q", title="d / T", scale=alt.Scale(domain=[0, 1], nice=False)),
            x2="right:Q",
            y=alt.Y("generation:O", title="generation", sort=[str(g) for g in reversed(GENERATIONS)]),
            color=alt.Color("regime:N", scale=alt.Scale(domain=list(REGIMES), range=COLOURS), title="growth from here on"),
        )
        if policy in INSTABILITIES:
            mark = alt.Chart(alt.Data(values=[{"x": INSTABILITIES[policy]}])).mark_rule(strokeDash=[5, 3], size=2)
            cells = alt.layer(cells, mark.encode(x="x:Q"))
        panels.append(cells)
    return (
        alt.concat(*panels, columns=4, spacing=24)
        .properties(
            title="Least squares on its own labels: how the error grows. Dashed: the two instabilities, kappa = 1 and q = 1."
        )
        .configure_view(stroke=None)
        .configure_legend(orient="bottom")
    )


if __name__ == "__main__":
    path = Path(__file__).parents[1] / "docs" / "theory" / "growth-map.svg"
    chart().save(path)
    print(f"Wrote {path}")

"""The growth map: which policies are bounded, logarithmic, linear or faster, by d/T and generation; laws beside lineages."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from refeed.report.results import Results
from refeed.theory.growth import CURVES, INSTABILITIES, OPEN, REGIMES, growth_map, measured_regime

if TYPE_CHECKING:
    import altair as alt

FEWEST = 4  # values of d/T from which on a study has a map
COLOURS = ("#3b7ea1", "#a9c9a4", "#f2c14e", "#c8553d", "#dddddd")
GENERATIONS = [1, 2, 4, 8, 16, 32, 64]
SHARES = [round(0.02 + 0.04 * k, 2) for k in range(25)]
CAPTION = (
    "Least squares on its own labels: the regime read off two doublings of the generations from each place on. Law: at T = 200; "
    "lineages: those of this study, grey where their scatter hides it. Dashed: the two instabilities, kappa = 1 and q = 1"
)


def growth(results: Results, cases: list[str]) -> alt.Chart | None:
    """The map of a grid of least-squares cases over at least four values of d/T; None for any other cases."""
    import altair as alt

    shares = _shares(results, cases)
    last = int(results.study.get("generations") or 1)
    generations = [n for n in GENERATIONS if 4 * n <= last]
    if len(set(shares.values())) < FEWEST or not generations:
        return None
    laws = _bands(growth_map(shares=SHARES, generations=GENERATIONS), SHARES)
    found = _bands(_measured(results, shares, generations), sorted(set(shares.values())))
    panels = []
    for name in dict.fromkeys([*(p for p in results.policies if p in CURVES), *results.policies, *CURVES]):
        pair = [(laws, f"law: {CURVES[name][0]}" if name in CURVES else ""), (found, "lineages")]
        panels += [_panel(alt, rows, name, about) for rows, about in pair if any(row["policy"] == name for row in rows)]
    return alt.concat(*panels, columns=4, spacing=20).configure_view(stroke=None).configure_legend(orient="bottom")


def _shares(results: Results, cases: list[str]) -> dict[str, float]:
    """d/T of each case that is least squares on a linear source."""
    found = {}
    for case in cases:
        made = results.cases[case]
        source = (made.get("source") or {}).get("fields", made.get("source") or {})
        plain = str((made.get("learner") or {}).get("kind", "")).rpartition(":")[2] in ("LeastSquares", "ols")
        if made.get("family") == "regression" and plain and {"dimension", "rows"} <= set(source):
            found[case] = source["dimension"] / source["rows"]
    return found


def _measured(results: Results, shares: dict[str, float], generations: list[int]) -> list[dict[str, Any]]:
    rows = []
    for case, share in shares.items():
        for policy in results.policies:
            lineages = results.lineages(case, policy, results.headline(case))
            if lineages is None:
                continue
            at = {int(generation): lineages.values[:, column] for column, generation in enumerate(lineages.generations)}
            for n in generations:
                if {n, 2 * n, 4 * n} <= set(at):
                    rows.append(
                        {"policy": policy, "share": share, "generation": n, "regime": measured_regime(at[n], at[2 * n], at[4 * n])}
                    )
    return rows


def _bands(rows: list[dict[str, Any]], shares: list[float]) -> list[dict[str, Any]]:
    """Each share with the band of d/T that it stands for: half way to its neighbours."""
    edges = [0.0, *((a + b) / 2 for a, b in itertools.pairwise(shares)), 1.0]
    place = {share: (edges[i], edges[i + 1]) for i, share in enumerate(shares)}
    keys = ("policy", "generation", "regime")
    return [{key: row[key] for key in keys} | dict(zip(("left", "right"), place[row["share"]], strict=True)) for row in rows]


def _panel(alt: Any, rows: list[dict[str, Any]], policy: str, about: str) -> Any:
    mine = [{**row, "generation": f"{row['generation']}"} for row in rows if row["policy"] == policy]
    shown = sorted({int(row["generation"]) for row in mine}, reverse=True)
    base = alt.Chart(alt.Data(values=mine), width=150, height=110, title=alt.Title(policy, subtitle=about, fontSize=11))
    cells = base.mark_rect().encode(
        x=alt.X("left:Q", title="d / T", scale=alt.Scale(domain=[0, 1], nice=False), axis=alt.Axis(tickCount=5)),
        x2="right:Q",
        y=alt.Y("generation:O", title="generation", sort=[str(n) for n in shown]),
        color=alt.Color("regime:N", scale=alt.Scale(domain=[*REGIMES, OPEN], range=list(COLOURS)), title="growth from here on"),
    )
    if policy not in INSTABILITIES:
        return cells
    mark = alt.Chart(alt.Data(values=[{"x": INSTABILITIES[policy]}])).mark_rule(strokeDash=[5, 3], size=2)
    return alt.layer(cells, mark.encode(x="x:Q"))

"""The page of a forecast check: coverage by policy as a figure and a table, in one self-contained file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from refeed.report import figures, theme
from refeed.report.html import Html, tag
from refeed.report.results import Results
from refeed.report.style import CSS

Row = dict[str, Any]


def page(results: Results, columns: Sequence[str], rows: Sequence[tuple[Row, Sequence[str]]]) -> str:
    """A complete HTML document; it runs no script and fetches nothing."""
    name = results.study["name"]
    head = tag("tr", *(tag("th", column) for column in columns))
    body = (tag("tr", *(tag("td", cell) for cell in cells)) for _, cells in rows)
    table = tag("div", tag("table", tag("thead", head), tag("tbody", *body)), cls="scroll")
    svg = Html(figures.to_svg(figures.specification(_chart(results, [row for row, _ in rows]))))
    said = (
        "Each lineage's end is forecast from its first generations. Points: the share of lineages whose end lies in the interval, "
        "with two standard errors; bars at the nominal level reach three points either way."
    )
    main = tag(
        "main",
        tag("header", tag("p", tag("span", "refeed", cls="mark"), f" · forecast check of {name}", cls="kicker"),
            tag("h1", results.study.get("question") or name)),
        tag("section", tag("figure", tag("div", svg, cls="plot grid"), tag("figcaption", said)), cls="card wide",
            style="margin-bottom:20px"),
        tag("section", tag("p", "* off by more than three points; +- is one standard error of an 80 % entry.", cls="small"),
            table, cls="card wide"),
        tag("footer", f"Made by: refeed forecast {name} --check"),
    )  # fmt: skip
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    parts = [
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("title", f"{name} · forecast check"),
        tag("style", Html(CSS)),
    ]
    return "<!doctype html>\n" + tag("html", tag("head", *parts), tag("body", main), lang="en")


def _chart(results: Results, rows: Sequence[Row]) -> Any:
    import altair as alt

    points = []
    for row in rows:
        found = row["coverage"]
        group = f"{row['case']}, {row['observe']} to {row['to']}, policy {'told' if row['told'] else 'not told'}"
        for level, share in found.shares.items():
            spread = 2 * (share * (1 - share) / found.trials) ** 0.5
            point = {"group": group, "p": row["policy"], "level": f"{level:.0%}", "y": share, "n": found.trials}
            points.append(point | {"lo": max(0.0, share - spread), "hi": min(1.0, share + spread)})
    bands = [{"level": f"{level:.0%}", "lo": level - 0.03, "hi": min(1.0, level + 0.03)} for level in (0.5, 0.8, 0.95)]
    x = alt.X("level:O", title="interval", sort=["50%", "80%", "95%"], axis=alt.Axis(labelAngle=0))
    scale = alt.Scale(domain=[0.2, 1.0], clamp=True)
    colour = alt.Color("p:N", title=None, scale=alt.Scale(domain=results.policies, range=theme.colours(results.policies)))
    offset = alt.XOffset("p:N", sort=results.policies)
    base = alt.Chart().encode(x=x)
    layers = alt.layer(
        *(
            base.transform_filter(f"datum.level === '{b['level']}'")
            .mark_bar(color="#e4e4e4")
            .encode(y=alt.datum(b["lo"]), y2=alt.datum(b["hi"]))
            for b in bands
        ),
        base.mark_rule(strokeWidth=1.5).encode(
            y=alt.Y("lo:Q", title="inside", scale=scale), y2="hi:Q", color=colour, xOffset=offset
        ),
        base.mark_point(filled=True, size=40, opacity=1).encode(
            y=alt.Y("y:Q", scale=scale, title="inside"), color=colour, xOffset=offset
        ),
        data=alt.Data(values=points),
    ).properties(width=230, height=170)
    return layers.facet(alt.Facet("group:N", title=None), columns=2).configure_view(stroke=None)

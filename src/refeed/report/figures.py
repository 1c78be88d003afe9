"""Figures as Altair charts: one specification each for the page, for SVG and for PDF."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from refeed.report import overlay, theme
from refeed.report.results import Lineages, Results
from refeed.report.statistics import mean_interval
from refeed.report.text import count, title, unit
from refeed.report.verdicts import ended

if TYPE_CHECKING:
    import altair as alt

MAX_LINES = 60  # lineages drawn for a policy and case
MAX_POINTS = 12_000  # of lineages in one figure, so that a page stays small
LOG_FROM = 10.0  # a logarithmic axis where the values span more than this factor


@dataclass(frozen=True, kw_only=True)
class Panel:
    """How large each panel of a figure is, and whether title and policy legend are left to the page around it."""

    width: int = 400
    height: int = 250
    bare: bool = False


def curves(results: Results, cases: list[str], quantity: str, *, panel: Panel | None = None) -> alt.Chart:
    """A quantity by policy against generation: mean with its 95 % t band, every lineage, theory and reference.

    One case gives one panel; several give a grid by their labels, each panel with its own scale.
    """
    panel = panel or (Panel() if len(cases) == 1 else Panel(width=180, height=130))
    rows = _curve_rows(results, cases, quantity)
    chart = _layers(results, rows, panel=panel).properties(width=panel.width, height=panel.height)
    chart = chart if len(cases) == 1 else _grid(results, cases, chart)
    return chart if panel.bare else chart.properties(title=_heading(results, cases, quantity))


def _curve_rows(results: Results, cases: list[str], quantity: str) -> list[dict[str, Any]]:
    """Everything drawn, one row a point: `k` tells lineage points (l), means (m), theory (t), reference (f), ends (x)."""
    rows: list[dict[str, Any]] = []
    every = {key: results.lineages(*key, quantity) for key in ((c, p) for c in cases for p in results.policies)}
    allowed, _ = _lines_drawn(results, cases, quantity)
    for (case, policy), lineages in every.items():
        at = {"c": case, "p": policy}
        if lineages:
            rows += (at | row for row in _measured(lineages, allowed, ended(results).get((case, policy), {})))
        law = overlay.theory(results, case, policy, quantity)
        rows += (at | {"k": "t", "g": g, "y": _short(y)} for g, y in (law.values.items() if law else ()))
    for case in cases:
        rows += ({"c": case, "k": "f", "g": g, "y": _short(y)} for g, y in overlay.reference(results, case, quantity).items())
    _clip_bands(rows)
    return rows


def _lines_drawn(results: Results, cases: list[str], quantity: str) -> tuple[int, int]:
    """How many lineages of a case and policy are drawn, and the most there are."""
    every = [lineages for c in cases for p in results.policies if (lineages := results.lineages(c, p, quantity))]
    points = sum(lineages.values.size for lineages in every)
    most = max((len(lineages.seeds) for lineages in every), default=0)
    return min(MAX_LINES, most, max(3, most * MAX_POINTS // max(points, 1))), most


def _measured(lineages: Lineages, allowed: int, early: dict[int, Any]) -> Iterator[dict[str, Any]]:
    for seed, values in list(zip(lineages.seeds.tolist(), lineages.values, strict=True))[:allowed]:
        finite = [(int(g), float(y)) for g, y in zip(lineages.generations, values, strict=True) if np.isfinite(y)]
        yield from ({"k": "l", "s": seed, "g": g, "y": _short(y)} for g, y in finite)
        if seed in early and finite:
            yield {"k": "x", "s": seed, "g": finite[-1][0], "y": _short(finite[-1][1]), "o": early[seed]["outcome"]}
    for generation in lineages.generations.tolist():
        values = list(lineages.at(generation).values())
        if not values:
            continue
        mean = mean_interval(values)
        row = {"k": "m", "g": generation, "y": _short(mean.value), "n": mean.n, "d": _short(float(np.median(values)))}
        if mean.low is not None and mean.high is not None:
            row |= {"lo": _short(mean.low), "hi": _short(mean.high)}
        yield row


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _num_generations(rows: list[dict[str, Any]]) -> int:
    return len({row["g"] for row in rows if row["k"] in "lm"})


def _is_log(rows: list[dict[str, Any]]) -> bool:
    by_case: dict[str, list[float]] = {}
    for row in rows:
        by_case.setdefault(row["c"], []).append(row["y"])
    if any(value <= 0 for values in by_case.values() for value in values):
        return False
    return any(max(values) > LOG_FROM * min(values) for values in by_case.values())


def _clip_bands(rows: list[dict[str, Any]]) -> None:
    """A quantity that is always positive has its band cut at zero, on a logarithmic axis at the lowest value shown."""
    lowest: dict[str, float] = {}
    for row in rows:
        lowest[row["c"]] = min(lowest.get(row["c"], np.inf), row["y"])
    log = _is_log(rows)
    for row in rows:
        if "lo" in row and lowest[row["c"]] > 0:
            row["lo"] = max(row["lo"], lowest[row["c"]] if log else 0.0)


def _layers(results: Results, rows: list[dict[str, Any]], *, panel: Panel) -> alt.LayerChart:
    import altair as alt

    present = {row.get("p") for row in rows}
    policies = [policy for policy in results.policies if policy in present]
    generations = [row["g"] for row in rows] or [1]
    last = max(generations)
    legend = None if panel.bare else alt.Legend()
    log, single = _is_log(rows), _num_generations(rows) == 1
    colour = alt.Color("p:N", scale=alt.Scale(domain=policies, range=theme.colours(policies)), legend=legend)
    shape = alt.Shape("p:N", scale=alt.Scale(domain=policies, range=theme.shapes(policies)), legend=legend)
    x = alt.X(
        "g:Q",
        title="generation",
        scale=alt.Scale(domain=[0.5, 1.5] if last == 1 else [1, last], nice=False),
        axis=alt.Axis(
            tickMinStep=1, format="d", tickCount=min(last, 10), values=list(range(1, last + 1)) if last <= 10 else alt.Undefined
        ),
    )
    scale = alt.Scale(type="log", nice=False) if log else alt.Scale(zero=False)
    y = alt.Y("y:Q", title=None, scale=scale, axis=alt.Axis(tickCount=5))
    base = alt.Chart(alt.Data(values=rows))

    def only(kind: str) -> alt.Chart:
        return base.transform_filter(f"datum.k === '{kind}'")

    theory_point: Any = {"shape": "stroke", "size": 400, "filled": False} if single else False
    most = len({row["s"] for row in rows if row["k"] == "l"})
    faint = min(0.45, max(0.12, 4 / max(most, 1)))
    tips = [
        alt.Tooltip("p:N", title="policy"),
        alt.Tooltip("g:Q", title="generation"),
        alt.Tooltip("y:Q", title="mean", format=".4g"),
        alt.Tooltip("lo:Q", title="95 % from", format=".4g"),
        alt.Tooltip("hi:Q", title="to", format=".4g"),
        alt.Tooltip("d:Q", title="median", format=".4g"),
        alt.Tooltip("n:Q", title="lineages"),
    ]
    seed = [alt.Tooltip("p:N", title="policy"), alt.Tooltip("s:Q", title="seed"), *tips[1:2]]
    value = alt.Tooltip("y:Q", title="value", format=".4g")
    band = only("m").transform_filter("isValid(datum.lo)")
    layers = [
        band.mark_rule(strokeWidth=1.5, strokeOpacity=0.7).encode(
            x=x, y=alt.Y("lo:Q", scale=scale, title=None), y2="hi:Q", color=colour
        )
        if single
        else band.mark_area(fillOpacity=0.13, aria=False).encode(
            x=x, y=alt.Y("lo:Q", scale=scale, title=None), y2="hi:Q", color=colour
        ),
        only("l")
        .mark_line(strokeWidth=1, strokeOpacity=faint, aria=False)
        .encode(x=x, y=y, color=colour, detail="s:N", tooltip=[*seed, value]),
        only("t").mark_line(strokeWidth=1.6, strokeDash=[5, 4], point=theory_point).encode(x=x, y=y, color=colour),
        only("f").mark_line(strokeWidth=1.4, strokeDash=[1, 3], strokeCap="round", color=theme.MUTED).encode(x=x, y=y),
        only("m").mark_line(strokeWidth=2.4).encode(x=x, y=y, color=colour),
        only("m")
        .mark_point(filled=True, size=min(46.0, 560 / last), opacity=1)
        .encode(x=x, y=y, color=colour, shape=shape, tooltip=tips),
        only("x")
        .mark_text(text="×", fontSize=18, fontWeight="bold")
        .encode(x=x, y=y, color=colour, tooltip=[*seed, alt.Tooltip("o:N", title="ended")]),
    ]
    kinds = {row["k"] for row in rows} | {"m"}
    wanted = ["m", "l", "t", "f", "m", "m", "x"]
    return alt.layer(*(layer for layer, kind in zip(layers, wanted, strict=True) if kind in kinds))


def about(results: Results, case: str, quantity: str) -> str:
    """`nats per token, lower is better`."""
    described = results.quantities(case)[quantity]
    better = {"lower": "lower is better", "higher": "higher is better"}.get(described["better"], "")
    return ", ".join(text for text in (unit(described), better) if text)


def legend_lines(results: Results, cases: list[str], quantity: str) -> list[str]:
    """What the lines of a figure of curves mean, in a few words each."""
    rows = _curve_rows(results, cases, quantity)
    kinds = {row["k"] for row in rows}
    counts = {row["n"] for row in rows if row["k"] == "m"} or {0}
    most = max(counts)
    spread = count(most, "lineage") if len(counts) == 1 else f"{min(counts)} to {count(most, 'lineage')}"
    said = [f"mean of {spread} with 95 % t band" if most > 1 else "one lineage, no interval"]
    said += ["thin: each lineage"] if most > 1 else []
    allowed, every = _lines_drawn(results, cases, quantity)
    said += [f"{allowed} of {every} lineages drawn"] if allowed < every else []
    said += [f"dashed: theory ({_theory_kind(results, cases, quantity)})"] if "t" in kinds else []
    said += [f"dotted: {title(results.quantities(cases[0])[quantity]['reference'])}"] if "f" in kinds else []
    said += ["×: ended early"] if "x" in kinds else []
    said += sorted({text for case in cases if (text := _training(results, case))})
    return said + (["logarithmic axis"] if _is_log(rows) else [])


def _training(results: Results, case: str) -> str:
    """How long each model of a case is trained, where its learner counts steps or epochs: under accumulate the two part ways."""
    learner = results.cases[case].get("learner", {})
    options = learner.get("fields", learner) if isinstance(learner, dict) else {}
    for name in ("steps", "epochs"):
        if isinstance(number := options.get(name), int) and number > 0:
            return f"every fit: {number:,} {name if number > 1 else name[:-1]}"
    return ""


def _heading(results: Results, cases: list[str], quantity: str) -> alt.TitleParams:
    import altair as alt

    lines = [about(results, cases[0], quantity), *_wrap(legend_lines(results, cases, quantity), 64)]
    text = f"{cases[0]}: {title(quantity)}" if len(cases) == 1 else title(quantity)
    return alt.TitleParams(text=text, subtitle=[line for line in lines if line])


def _wrap(parts: list[str], width: int) -> list[str]:
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(part) + 3 <= width:
            lines[-1] += f" · {part}"
        else:
            lines.append(part)
    return lines


def _theory_kind(results: Results, cases: list[str], quantity: str) -> str:
    laws = (overlay.theory(results, case, policy, quantity) for case in cases for policy in results.policies)
    return ", ".join(sorted({law.kind for law in laws if law and law.values}))


def _grid(results: Results, cases: list[str], chart: alt.LayerChart) -> alt.Chart:
    """Panels by label: rows and columns where two labels make a full grid, else wrapped by case."""
    import altair as alt

    labels = [results.cases[case].get("labels", {}) for case in cases]
    names = sorted({name for each in labels for name in each})
    varied = [name for name in names if len({json.dumps(each.get(name)) for each in labels}) > 1]
    rows: list[dict[str, Any]] = chart.data.values
    shared = {"x": "shared", "y": "independent", "color": "shared"}
    if len(varied) == 2:
        by_size = sorted(varied, key=lambda name: len({json.dumps(each.get(name)) for each in labels}))
        row_name, column_name = by_size
        place = dict(zip(cases, labels, strict=True))
        for row in rows:
            row["r"], row["q"] = place[row["c"]].get(row_name), place[row["c"]].get(column_name)
        orders = {name: _ordered(each.get(name) for each in labels) for name in varied}
        facet: dict[str, Any] = {
            "row": alt.Row("r:O", title=row_name, sort=orders[row_name]),
            "column": alt.Column("q:O", title=column_name, sort=orders[column_name]),
        }
        return chart.facet(**facet, spacing=14).resolve_scale(**shared)
    told = {case: _label(case, each, varied) for case, each in zip(cases, labels, strict=True)}
    for row in rows:
        row["r"] = told[row["c"]]
    wrapped = alt.Facet("r:N", title=None, sort=list(told.values()))
    return chart.facet(wrapped, columns=2 if len(cases) == 4 else min(3, len(cases)), spacing=14).resolve_scale(**shared)


def _ordered(values: Any) -> list[Any]:
    return sorted(set(values), key=lambda value: (isinstance(value, str), value))


def _label(case: str, labels: dict[str, Any], varied: list[str]) -> str:
    return ", ".join(f"{name.rsplit('.', 1)[-1]} {labels[name]}" for name in varied if name in labels) or case


def composition(results: Results, case: str, *, panel: Panel | None = None) -> alt.Chart | None:
    """What each generation learned from: rows by the generation they were born in, real ones in their own colour."""
    import altair as alt

    panel = panel or Panel(width=150, height=160)
    rows = _composition_rows(results, case)
    if not rows:
        return None
    last = max(row["o"] for row in rows)
    names = ["real", *(str(origin) for origin in range(1, last + 1))]
    shown = names if last <= 6 else ["real", *(names[i] for i in np.unique(np.linspace(1, last, 5).astype(int)))]
    policies = [policy for policy in results.policies if any(row["p"] == policy for row in rows)]
    for row in rows:
        row["b"] = names[row["o"]]
    legend = alt.Legend(
        values=shown, title="rows born in generation", titleColor=theme.MUTED, titleOrient="left", symbolType="square"
    )
    colour = alt.Color("b:N", scale=alt.Scale(domain=names, range=theme.origin_colours(last)), legend=legend)
    generations = sorted({row["g"] for row in rows})
    step = -(-len(generations) // (6 if panel.width < 140 else 10))
    bars = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar()
        .encode(
            x=alt.X(
                "g:O",
                title="generation",
                axis=alt.Axis(labelAngle=0, values=generations[::step]),
                scale=alt.Scale(paddingInner=0.15),
            ),
            y=alt.Y("n:Q", title=None, stack="zero", axis=alt.Axis(tickCount=4, format="~s")),
            color=colour,
            order=alt.Order("o:Q"),
            tooltip=[
                alt.Tooltip("p:N", title="policy"),
                alt.Tooltip("g:O", title="training set of generation"),
                alt.Tooltip("b:N", title="rows born in"),
                alt.Tooltip("n:Q", title="rows", format=",.0f"),
            ],
        )
        .properties(width=panel.width, height=panel.height)
    )
    by_policy = alt.Facet("p:N", title=None, sort=policies)
    chart = bars.facet(by_policy, columns=min(4, len(policies)), spacing=16)
    heading = alt.TitleParams(text=f"{case}: training sets", subtitle="rows, by the generation they were born in")
    return chart if panel.bare else chart.properties(title=heading)


def _composition_rows(results: Results, case: str) -> list[dict[str, Any]]:
    """Mean rows over lineages by policy, generation and origin."""
    totals: dict[tuple[str, int, int], float] = {}
    seeds: dict[tuple[str, int], set[int]] = {}
    for row in results.composition.to_pylist():
        if row["case"] == case:
            key = (row["policy"], row["generation"], row["origin"])
            totals[key] = totals.get(key, 0) + row["rows"]
            seeds.setdefault(key[:2], set()).add(row["seed"])
    return [
        {"p": policy, "g": generation, "o": origin, "n": _short(total / len(seeds[policy, generation]))}
        for (policy, generation, origin), total in sorted(totals.items())
    ]


def specification(chart: alt.Chart) -> dict[str, Any]:
    """The chart as Vega-Lite JSON, with refeed's type and colours."""
    return {**chart.to_dict(validate=False), "config": theme.config()}


def to_svg(spec: dict[str, Any]) -> str:
    import vl_convert

    return str(vl_convert.vegalite_to_svg(spec))


def to_pdf(svg: str) -> bytes:
    import vl_convert

    return bytes(vl_convert.svg_to_pdf(svg))

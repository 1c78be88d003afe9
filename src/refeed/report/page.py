"""One self-contained HTML page from a results folder, and every figure beside it as SVG and PDF."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refeed.report import figures, growth, panels, sections, series
from refeed.report.figures import Panel
from refeed.report.html import Html, join, script, script_json, tag
from refeed.report.overlay import reference_names, theory
from refeed.report.results import Results, write_atomically
from refeed.report.style import CSS, SCRIPT
from refeed.report.table import Row, summary_rows
from refeed.report.text import number, title
from refeed.report.verdicts import Verdict, verdicts

if TYPE_CHECKING:
    import altair as alt

# The page can fetch nothing, whatever a sampled text says; Vega compiles its expressions, hence 'unsafe-eval'.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'"
MAX_DETAILED = 3  # cases of one kind shown one by one; more become a grid


def write(folder: str | os.PathLike[str]) -> Path:
    """Write `report.html` and `figures/*.svg`, `figures/*.pdf` into a results folder; returns the page's path."""
    target = Path(folder)
    results = Results.load(target)
    builder = _Builder(results)
    page = builder.page()
    (target / "figures").mkdir(exist_ok=True)
    for name, svg in builder.files.items():
        write_atomically(target / "figures" / f"{name}.svg", svg.encode())
        write_atomically(target / "figures" / f"{name}.pdf", figures.to_pdf(svg))
    write_atomically(target / "report.html", page.encode())
    return target / "report.html"


@dataclass
class _Builder:
    """Collects the files of the figures while the page is put together."""

    results: Results
    files: dict[str, str] = field(default_factory=dict)  # complete SVG by name
    specs: list[Html] = field(default_factory=list)

    def page(self) -> str:
        import vl_convert

        results = self.results
        rows = summary_rows(results)
        by_case = {case: verdicts(results, case) for case in results.cases}
        parts = [
            sections.header(results),
            tag("h2", "What happened"),
            tag(
                "p",
                "Means over lineages; change is last over first generation, paired by seed, with its 95 % t interval.",
                cls="lead",
            ),
            sections.noticed(results),
            tag("div", *(self.overview(group, rows) for group in groups(results)), cls="cards"),
            *self.verdicts(by_case),
            *self.measurements(),
            *self.growth(),
            *self.compositions(),
            *self.samples(),
            *self.run(),
        ]
        head = [
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("title", f"{results.study['name']} · refeed"),
            tag("style", Html(CSS)),
        ]
        footer = tag("footer", "Written by refeed. The page needs no network; figures/ holds each figure as SVG and PDF.")
        bundle = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub has no defaults
        scripts = [*self.specs, script(bundle), script(SCRIPT)]
        body = tag("body", tag("main", *parts, footer), *scripts)
        return "<!doctype html>\n" + tag("html", tag("head", *head), body, lang="en")

    def overview(self, group: list[str], rows: list[Row]) -> Html:
        """The card of a case, or of a grid of cases: the headline quantity's curves and their table."""
        results, mine = self.results, [row for row in rows if row.case in group]
        quantity = results.headline(group[0])
        made = results.cases[group[0]]
        name = group[0] if len(group) == 1 else f"{made.get('family', 'study')}: {len(group)} cases"
        recipes = sections.recipes(results, group[0])
        table = sections.headline_table(results, mine) if len(group) == 1 else sections.change_matrix(results, mine)
        return tag(
            "section",
            tag("h3", name),
            tag("p", recipes, cls="small clamp", title=recipes) if len(group) == 1 else None,
            sections.legend(results),
            self.curves(group, quantity, Panel(width=340, height=220, bare=True)),
            table,
            cls="card" if len(group) == 1 else "card wide",
        )

    def curves(self, cases: list[str], quantity: str, panel: Panel) -> Html | None:
        results = self.results
        if not any(results.lineages(case, policy, quantity) for case in cases for policy in results.policies):
            return tag("p", f"{title(quantity)}: nothing finite was measured", cls="small")
        if len(cases) > 1:
            panel = Panel(width=200, height=140, bare=True)
        where = cases[0] if len(cases) == 1 else results.cases[cases[0]].get("family", "cases")
        about = figures.about(results, cases[0], quantity)
        meaning = results.quantities(cases[0])[quantity]["meaning"]
        problems = {
            law.problem for case in cases for p in results.policies if (law := theory(results, case, p, quantity)) and law.problem
        }
        said = [text for text in (meaning, *figures.legend_lines(results, cases, quantity), *sorted(problems)) if text]
        full = figures.curves(results, cases, quantity)
        bare = figures.curves(results, cases, quantity, panel=panel)
        head = tag("h4", title(quantity), " ", tag("span", about, cls="small"))
        return self.figure(f"{where}-{quantity}", full, bare, head, _sentence(said), grid=len(cases) > 1)

    def figure(self, name: str, full: alt.Chart, bare: alt.Chart, head: Html, caption: str, *, grid: bool = False) -> Html:
        name = _slug(name, self.files)
        self.files[name] = figures.to_svg(figures.specification(full))
        spec = figures.specification(bare)
        svg = inline(figures.to_svg(spec), f"f{len(self.files)}")
        self.specs.append(script_json(spec, id=f"spec-{name}"))
        links = tag("span", *(tag("a", kind.upper(), href=f"figures/{name}.{kind}") for kind in ("svg", "pdf")), cls="files")
        plot = tag("div", svg, cls="plot grid" if grid else "plot")
        return tag("figure", head, plot, tag("figcaption", caption, links), data_spec=f"spec-{name}")

    def verdicts(self, by_case: dict[str, list[Verdict]]) -> Iterator[Html]:
        yield tag("h2", "Verdicts")
        yield tag(
            "p",
            "Collapse has many definitions, and they disagree; here is each with its own number. Yes: the 95 % interval lies on "
            "the worse side of no change. No: it excludes a change for the worse of more than 10 %. Otherwise: cannot say.",
            cls="lead",
        )
        for group in groups(self.results):
            every = [verdict for case in group for verdict in by_case[case]]
            several = len(group) > 1
            table = sections.verdict_table(self.results, every)
            lines = [
                part for case in group for part in (tag("h4", case) if several else None, sections.verdict_lines(by_case[case]))
            ]
            words = tag("details", tag("summary", "In words, with intervals and methods"), *lines)
            name = group[0] if not several else f"{self.results.cases[group[0]].get('family')}: {len(group)} cases"
            yield tag("section", tag("h3", name), table, words, cls="card", style="margin-bottom:20px")

    def measurements(self) -> Iterator[Html]:
        """All quantities beside the headline, as small multiples."""
        results = self.results
        made: list[Html | None] = []
        constant: list[str] = []
        unmeasured: list[str] = []
        for group in groups(results):
            joined = {case: series.series(results, case) for case in group}
            made += [self.series(case, one) for case, several in joined.items() for one in several]
            skipped = {results.headline(group[0])} | reference_names(results, group[0])
            skipped |= {quantity for one in joined[group[0]] for quantity in one.places}
            for quantity in results.quantities(group[0]):
                if quantity in skipped:
                    continue
                of = f" ({group[0]})" if len(groups(results)) > 1 else ""
                if not any(results.lineages(case, policy, quantity) for case in group for policy in results.policies):
                    unmeasured.append(f"{title(quantity)}{of}")
                    continue
                if (value := self.always(group, quantity)) is not None:
                    constant.append(f"{title(quantity)} {number(value)}{of}")
                    continue
                drawn = self.curves(group, quantity, Panel(width=200, height=140, bare=True))
                made.append(tag("section", tag("p", group[0], cls="small"), drawn, cls="card wide" if len(group) > 1 else "card"))
        if made:
            yield tag("h2", "Also measured")
            yield sections.legend(results)
            yield tag("div", *made, cls="cards small-multiples")
        if constant:
            yield tag("p", f"The same in every generation and lineage: {', '.join(constant)}.", cls="small")
        if unmeasured:
            yield tag("p", f"Nothing finite was measured of: {', '.join(unmeasured)}.", cls="small")

    def always(self, cases: list[str], quantity: str) -> float | None:
        """The value that every model of some cases has, where they all have one."""
        every = (self.results.lineages(case, policy, quantity) for case in cases for policy in self.results.policies)
        values = {float(value) for lineages in every if lineages for value in lineages.values.flat if value == value}
        return values.pop() if len(values) == 1 else None

    def series(self, case: str, of: series.Series) -> Html:
        """The card of quantities that are points of one curve."""
        drawn = series.chart(self.results, case, of)
        head = tag("h4", of.name, " ", tag("span", of.unit if of.unit != "1" else "", cls="small"))
        caption = _sentence(["mean over lineages; a line for each generation, from light to dark"])
        figure = self.figure(f"{case}-{of.name}", drawn.properties(title=f"{case}: {of.name}"), drawn, head, caption, grid=True)
        return tag("section", tag("p", case, cls="small"), figure, cls="card wide")

    def growth(self) -> Iterator[Html]:
        """Where the study spans d/T: the map of growth regimes, the laws beside the lineages."""
        for group in groups(self.results):
            full = growth.growth(self.results, group)
            if full is not None:
                head = tag("h4", "Growth map ", tag("span", "regime by d/T and generation", cls="small"))
                drawn = self.figure("growth-map", full, full, head, _sentence([growth.CAPTION]), grid=True)
                yield tag("h2", "How the error grows")
                yield tag("section", drawn, cls="card wide")

    def compositions(self) -> Iterator[Html]:
        """What each generation trained on; cases with the same shares are drawn once."""
        made: list[Html] = []
        for group in groups(self.results):
            case = group[0]
            full = figures.composition(self.results, case)
            bare = figures.composition(self.results, case, panel=Panel(width=118, height=130, bare=True))
            if full is None or bare is None:
                continue
            same = "" if len(group) == 1 else f"; the first of {len(group)} cases"
            caption = f"Rows of the training set, mean over lineages, coloured by the generation they were born in{same}."
            made.append(tag("section", self.figure(f"{case}-training-sets", full, bare, tag("h4", case), caption), cls="card"))
        if made:
            yield tag("h2", "What each generation learned from")
            yield tag("div", *made, cls="cards")

    def samples(self) -> Iterator[Html]:
        shown = {case: part for case in self.results.cases if (part := sections.samples(self.results, case))}
        if shown:
            yield tag("h2", "Samples")
        for case, part in shown.items():
            yield join(tag("p", f"{case}, one lineage, as sampled", cls="lead"), part, panels.panels(self.results, case))

    def run(self) -> Iterator[Html]:
        results = self.results
        yield tag("h2", "The run")
        cards = [
            (
                tag("h3", "Command"),
                tag("pre", str(results.run.get("command", ""))),
                tag("h3", "How to cite"),
                sections.cite(results),
            ),
            (
                tag("h3", "Cost"),
                sections.cost(results),
                tag("h3", "Environment", style="margin-top:22px"),
                sections.environment(results),
                sections.all_recipes(results),
            ),
        ]
        yield tag("div", *(tag("section", *card, cls="card") for card in cards), cls="cards")


def groups(results: Results) -> list[list[str]]:
    """Cases that are drawn together: those of one family and headline that differ in their labels, if they are many."""
    found: dict[str, list[str]] = {}
    for name, case in results.cases.items():
        key = json.dumps([case.get("family"), results.headline(name), sorted(case.get("labels", {}))])
        found.setdefault(key, []).append(name)
    return [part for cases in found.values() for part in ([cases] if len(cases) > MAX_DETAILED else [[case] for case in cases])]


def inline(svg: str, prefix: str) -> Html:
    """An SVG of ours for the page: its ids made unique among all figures, its size a limit rather than fixed."""
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg).replace("url(#", f"url(#{prefix}-").replace('href="#', f'href="#{prefix}-')
    found = re.search(r'<svg[^>]*?\bwidth="([\d.]+)"', svg)
    width = float(found[1]) if found else 500.0
    return Html(svg.replace("<svg ", f'<svg style="max-width:{width * 1.35:.0f}px" ', 1))


def _sentence(parts: list[str]) -> str:
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."


def _slug(name: str, taken: dict[str, Any]) -> str:
    """A file name from a figure's name, such as `regression-excess-risk`."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80] or "figure"
    number, slug = 1, plain
    while slug in taken:
        number, slug = number + 1, f"{plain}-{number + 1}"
    return slug

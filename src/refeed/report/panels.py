"""Images of every generation one above the other, a card for each policy: what a model makes of inputs that stay the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from refeed.report import theme
from refeed.report.html import Html, join, tag
from refeed.report.results import Results
from refeed.report.sections import image, policy_name

MOST = 24  # images shown in a row
FEW = 6  # up to so many are shown large


def panels(results: Results, case: str) -> Html | None:
    """The panels of a case's exhibits, title by title: real rows on top, then a row for each generation."""
    entries = [entry for entry in results.exhibits if entry["case"] == case and entry.get("panels")]
    titles = dict.fromkeys(title for entry in entries for title in entry["panels"])
    made = [part for title in titles if (part := _panel(results, entries, title))]
    return join(*made) if made else None


def _panel(results: Results, entries: list[dict[str, Any]], title: str) -> Html | None:
    real = [entry for entry in entries if entry["policy"] == "real"][:1]
    cards = []
    for policy, colour in zip(results.policies, theme.colours(results.policies), strict=True):
        here = sorted((entry for entry in entries if entry["policy"] == policy), key=lambda entry: entry["generation"])
        strips = list(_strips([*real, *here], title))
        if here and strips:
            cards.append(tag("div", policy_name(results, policy), *strips, cls="sample", style=f"--c:{colour}"))
    return join(tag("h3", title.capitalize()), tag("div", *cards, cls="samples")) if cards else None


def _strips(entries: list[dict[str, Any]], title: str) -> Iterator[Html]:
    for entry in entries:
        items = entry["panels"].get(title, [])[:MOST]
        if items:
            label = "real" if entry["policy"] == "real" else f"gen. {entry['generation']}"
            widest = 64 if len(items) > FEW else 190
            columns = f"grid-template-columns: 46px repeat({len(items)}, minmax(0, {widest}px))"
            yield tag("div", tag("span", label, cls="small"), *(image(item) for item in items), cls="strip", style=columns)

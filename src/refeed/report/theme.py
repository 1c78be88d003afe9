"""Colours and type of every figure and page. The policy colours are told apart under all common colour deficiencies."""

from __future__ import annotations

from typing import Any

# Okabe and Ito's palette: loops that forget are warm, loops that remember are cool.
POLICY_COLOURS = {
    "replace": "#d55e00",
    "accumulate": "#0072b2",
    "replace-multiple": "#e69f00",
    "accumulate-subsample": "#56b4e9",
}
OTHER_COLOURS = ("#009e73", "#cc79a7", "#7a6a53", "#8172b3", "#a8a032", "#4d4d4d")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")

REAL = "#1a9a78"  # rows of the source, everywhere
SYNTHETIC = ((0xD9, 0xD2, 0xEC), (0x46, 0x2A, 0x7C))  # rows of generation 1 to those of the last one

# The page swaps these for its dark theme by matching the attribute values, so each stands for one role.
INK = "#1e2530"
MUTED = "#667080"
RULE = "#e3e6eb"

FONT = "Helvetica Neue, Arial, Liberation Sans, sans-serif"


def colours(policies: list[str]) -> list[str]:
    """A colour for each policy, the same in every report for those that ship."""
    spare = iter(OTHER_COLOURS * (1 + len(policies) // len(OTHER_COLOURS)))
    return [POLICY_COLOURS.get(policy) or next(spare) for policy in policies]


def shapes(policies: list[str]) -> list[str]:
    return [SHAPES[i % len(SHAPES)] for i in range(len(policies))]


def origin_colours(count: int) -> list[str]:
    """Real rows in their own colour, then `count` steps from light to dark, one for each generation rows came from."""
    steps = [i / max(1, count - 1) for i in range(count)]
    mixed = [[round(a + (b - a) * step) for a, b in zip(*SYNTHETIC, strict=True)] for step in steps]
    return [REAL, *("#" + "".join(f"{channel:02x}" for channel in colour) for colour in mixed)]


def config() -> dict[str, Any]:
    """The Vega-Lite configuration of every figure."""
    quiet = {"labelColor": MUTED, "titleColor": MUTED, "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal"}
    return {
        "font": FONT,
        "background": None,
        "view": {"stroke": None},
        "axis": quiet
        | {"gridColor": RULE, "domainColor": MUTED, "tickColor": MUTED, "domainWidth": 1, "tickSize": 4, "labelPadding": 4},
        "axisY": {"domain": False, "ticks": False},
        "axisX": {"grid": False},
        "legend": {
            "orient": "top",
            "direction": "horizontal",
            "title": None,
            "labelColor": INK,
            "labelFontSize": 12,
            "symbolSize": 90,
            "symbolOpacity": 1,
            "symbolStrokeWidth": 2,
            "columnPadding": 16,
            "labelLimit": 220,
            "offset": 8,
        },
        "title": {
            "anchor": "start",
            "frame": "group",
            "color": INK,
            "fontSize": 14,
            "fontWeight": 600,
            "subtitleColor": MUTED,
            "subtitleFontSize": 11,
            "subtitlePadding": 4,
            "offset": 10,
        },
        "header": {"labelColor": INK, "labelFontSize": 12, "labelFontWeight": 600, "titleColor": MUTED, "titleFontSize": 11},
    }

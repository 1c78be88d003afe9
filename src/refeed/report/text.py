"""Numbers and names as a reader wants them."""

from __future__ import annotations

import math
from typing import Any

from refeed.report.statistics import Estimate

MINUS = "\N{MINUS SIGN}"


def number(value: float | None, *, digits: int = 3) -> str:
    """`value` with a few significant digits, in powers of ten only where it is far from one: 0.0421, 1234, 3.1e7."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else MINUS + "∞"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    if -4 <= exponent < 6:
        text = f"{value:.{max(0, digits - 1 - exponent)}f}"
    else:
        text = f"{value:.{digits - 1}e}".replace("e-0", f"e{MINUS}").replace("e-", f"e{MINUS}").replace("e+0", "e")
        text = text.replace("e+", "e")
    return text.replace("-", MINUS, 1) if value < 0 else text


def signed(value: float) -> str:
    return ("+" if value > 0 else "") + number(value)


def estimate_value(estimate: Estimate) -> str:
    """`x4.92` for a ratio, a signed number for a difference or slope."""
    if estimate.scale == "ratio":
        return "×" + number(estimate.value)
    return number(estimate.value) if estimate.scale == "value" else signed(estimate.value)


def interval(estimate: Estimate) -> str:
    """`3.21 to 7.55`, or empty where there is no interval."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{number(estimate.low)} to {number(estimate.high)}"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{number(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def count(n: int, noun: str) -> str:
    """`1 seed`, `3 seeds`, `2 policies`."""
    if n == 1:
        return f"1 {noun}"
    return f"{n:,} {noun[:-1]}ies" if noun.endswith("y") else f"{n:,} {noun}s"


def title(name: str) -> str:
    """A quantity's name for a heading: `cross_entropy` becomes `cross entropy`."""
    return name.replace("_", " ")


def unit(quantity: dict[str, Any]) -> str:
    """The unit as an addition to a name: empty for a pure number."""
    return "" if quantity.get("unit", "1") in ("1", "") else str(quantity["unit"])

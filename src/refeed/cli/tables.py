"""Short tables in the terminal."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from refeed.report import Results
    from refeed.report.table import Row


def console(width: int) -> Console:
    """Where tables are printed: as wide as the terminal, or, where that is none, so wide that they are not folded."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else width)


def print_summary(results: Results) -> None:
    """The headline quantity of every case and policy, from generation 1 to the last."""
    from rich.table import Table

    from refeed.report import summary_rows
    from refeed.report.notices import notices

    out = console(140)
    if results.study["question"]:
        out.print(f"\n{results.study['question']}\n", style="bold", markup=False, highlight=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("case", "policy", "quantity", "seeds", "generation 1", "last", "ratio", "95 % t interval", "theory", ""):
        left = column in ("case", "policy", "quantity", "")
        table.add_column(column, justify="left" if left else "right", no_wrap=not left)
    previous = None
    for row in summary_rows(results):
        if previous not in (None, row.case):
            table.add_row()
        table.add_row(*_cells(row, first=row.case != previous))
        previous = row.case
    out.print(table)
    for notice in notices(results):
        out.print(f"note: {notice}", style="yellow", markup=False)


def _cells(row: Row, *, first: bool) -> list[str]:
    from rich.markup import escape

    change = row.change
    num = change.n if change else 0
    interval = "-" if change is None or change.low is None else f"{change.low:.3f} to {change.high:.3f}"
    return [
        escape(row.case) if first else "",
        escape(row.policy),
        row.quantity if first else "",
        str(num or "-"),
        _number(row.first),
        _number(row.last),
        _number(change.value if change else None),
        interval,
        _number(row.theory),
        ", ".join(f"{count} {outcome}" for outcome, count in row.outcomes.items() if outcome != "completed"),
    ]


def as_json(results: Results) -> list[dict[str, Any]]:
    """The same rows as plain data."""
    from refeed.report import summary_rows

    return [asdict(row) for row in summary_rows(results)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"

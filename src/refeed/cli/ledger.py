"""The ledger in the terminal: what every generation was trained on, and what keeping it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from refeed.cli import tables

if TYPE_CHECKING:
    from refeed.report import Results

HEADS = {
    "generation": "generation",
    "rows": "rows",
    "unique_rows": "unique",
    "real_share": "real",
    "real_weight": "real weight",
    "depth": "depth",
    "effective_rows": "worth real rows",
    "tokens": "tokens",
    "real_tokens": "real tokens",
    "prompt_tokens": "of prompts",
    "rows_kept": "rows kept",
    "bytes": "on disk",
    "rejected": "rejected",
    "repeats": "repeats",
    "repeats_real": "repeats, real",
    "ended": "ended",
    "mean_length": "length",
}
LEGEND = """\
real: share of the rows; real weight: their share of the training weight; depth: mean number of models between a row and real data;
worth real rows: fresh real rows that would fix a mean as precisely; rows kept, on disk: the pool after the generation.
Real tokens: those of real rows, and the first ones of sampled rows that were taken from real rows (of prompts).
Of what the model wrote: rejected by filters; repeats of an earlier row, beside that share of real rows; ended as real rows do."""


def ledger_rows(results: Results) -> list[dict[str, Any]]:
    """The ledger as plain data."""
    assert results.ledger is not None
    return [{name: None if value != value else value for name, value in line.items()} for line in results.ledger.to_pylist()]


def print_ledger(results: Results) -> None:
    """Every line of the ledger, by case and policy; of the first seed."""
    from rich.table import Table

    from refeed.workspace.provenance import given

    lines = ledger_rows(results)
    if not lines:
        print("These results have no ledger: run the study again, whatever is done is reused.")
        return
    heads = {name: head for name, head in HEADS.items() if any(line.get(name) for line in lines) or name == "real_share"}
    table = Table(box=None, header_style="bold", pad_edge=False)
    for head in ("case", "policy", *heads.values()):
        table.add_column(head, justify="left" if head in ("case", "policy") else "right", no_wrap=head not in ("case", "policy"))
    before: tuple[Any, Any] = (None, None)
    for line in lines:
        here = (line["case"], line["policy"])
        if before[0] is not None and here != before:
            table.add_row()
        names = (line["case"] if here != before else "", line["policy"] if here != before else "")
        table.add_row(*names, *(_cell(name, line[name]) for name in heads))
        before = here
    console = tables.console(160)
    console.print(table)
    for case in results.study["cases"]:
        if (said := given(case.get("origins"))) != "real":
            console.print(f"note: {case['name']}: the rows counted as real are {said}.", style="yellow", soft_wrap=True)
    console.print(f"\nSeed {lines[0]['seed']}. {LEGEND}", soft_wrap=True)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name in ("real_share", "real_weight", "rejected", "repeats", "repeats_real", "ended"):
        return f"{value:.1%}"
    if name == "bytes":
        return human(value)
    return f"{value:,.2f}" if name in ("depth", "mean_length") else f"{value:,.0f}"


def human(size: float) -> str:
    """A number of bytes for people: 3.2 MiB."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.0f} B" if units[0] == "B" else f"{size:.1f} {units[0]}"

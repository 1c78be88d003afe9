"""`refeed forecast STUDY --check`: would the forecasts of this study's own lineages have been right?"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refeed.core.errors import UserError

if TYPE_CHECKING:
    from refeed.report import Results
    from refeed.theory.calibration import Coverage

HORIZONS = ((5, 20), (8, 40))  # observed, forecast; cut at the last generation
Row = dict[str, Any]


def check(
    folder: Path, *, observe: int | None, to: int | None, policy: str | None, case: str | None, quantity: str | None, most: int
) -> list[Row]:
    """One row a case, policy, horizon and "told or not": how often the truth lay inside the intervals."""
    from refeed.report import Results
    from refeed.theory.calibration import coverage

    results = Results.load(folder)
    found = []
    for trials, head in _trials(results, observe, to, policy, case, quantity, most):
        for told in (True, False):
            part = [trial for trial in trials if trial.told == told]
            if part:
                found.append(head | {"told": told} | {"coverage": coverage(part)})
    if not found:
        raise UserError(
            f"{folder.name} has no lineage that can be checked: a forecast needs 3 generations seen and at least one ahead.",
            hint="Type, for example: --observe 3 --to 5, or run the study with more generations.",
        )
    return found


def _trials(
    results: Results, observe: int | None, to: int | None, policy: str | None, case: str | None, quantity: str | None, most: int
) -> Iterator[tuple[list[Any], Row]]:
    import numpy as np
    from rich.console import Console
    from rich.progress import track

    from refeed.theory.calibration import trial

    jobs: list[tuple[np.ndarray, Row]] = []
    for name in [case] if case else list(results.cases):
        for each in [policy] if policy else results.policies:
            lineages = results.lineages(name, each, quantity or results.headline(name)) if name in results.cases else None
            if lineages is None:
                raise UserError(f"the study has no case {name!r} with policy {each!r} and that quantity.")
            curves = lineages.values[np.isfinite(lineages.values).all(axis=1)][:most]
            last = curves.shape[1]
            for seen, end in _horizons(observe, to, last):
                head: Row = {"case": name, "policy": each, "observe": seen, "to": end}
                jobs.append((curves, head))
    for curves, head in track(jobs, description="forecasting", console=Console(stderr=True), disable=not sys.stderr.isatty()):
        shape = head["policy"].partition(" (")[0]
        trials = [
            t for i, curve in enumerate(curves) for t in trial(curve, observe=head["observe"], to=head["to"], policy=shape, seed=i)
        ]
        yield trials, head


def _horizons(observe: int | None, to: int | None, last: int) -> list[tuple[int, int]]:
    asked = HORIZONS if observe is None else ((observe, to or last),)
    return list(dict.fromkeys((seen, min(to or end, last)) for seen, end in asked if seen < min(to or end, last)))


def show(rows: Sequence[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("case", "policy", "told", "decisions") else "right")
    for row in rows:
        table.add_row(*cells(row))
    Console(width=150).print(table)
    off, far = (sum(_off(row, errors) for row in rows) for errors in (0, 2))
    print(f"\n{off} of {len(rows)} rows are off by more than 3 points at 80 or 95 % (marked *), {far} of them beyond chance:")
    print("by more than 3 points and two standard errors. +-: one standard error of an 80 % entry. More seeds make it smaller.")


COLUMNS = ("case", "policy", "told", "k to H", "lineages", "50 %", "80 %", "95 %", "+-", "median miss", "80 % width", "decisions")


def _off(row: Row, errors: float) -> bool:
    found: Coverage = row["coverage"]
    return any(abs(found.shares[level] - level) > 0.03 + errors * found.errors[level] for level in (0.8, 0.95))


def cells(row: Row) -> list[str]:
    found: Coverage = row["coverage"]
    shares = [f"{share:.2f}" + ("" if level == 0.5 or found.calibrated[level] else "*") for level, share in found.shares.items()]
    decisions = ", ".join(f"{name} {share:.2f}" for name, share in list(found.decisions.items())[:3])
    head = [row["case"], row["policy"], "yes" if row["told"] else "no", f"{row['observe']} to {row['to']}", str(found.trials)]
    return [*head, *shares, f"{found.errors[0.8]:.2f}", f"{found.miss:.3g}", f"{found.width:.3g}", decisions]


def as_json(rows: Sequence[Row]) -> str:
    plain = []
    for row in rows:
        found: Coverage = row["coverage"]
        plain.append(
            {key: value for key, value in row.items() if key != "coverage"}
            | {"lineages": found.trials, "coverage": {f"{level:.0%}": share for level, share in found.shares.items()}}
            | {"standard_error": {f"{level:.0%}": error for level, error in found.errors.items()}}
            | {"median_miss": found.miss, "width": found.width, "decisions": found.decisions}
        )
    return json.dumps(plain)


def write(folder: Path, rows: Sequence[Row]) -> Path:
    """The same as a page in the study's results folder."""
    from refeed.report.coverage import page
    from refeed.report.results import Results, write_atomically

    target = folder / "forecast-check.html"
    write_atomically(target, page(Results.load(folder), COLUMNS, [(row, cells(row)) for row in rows]).encode())
    return target

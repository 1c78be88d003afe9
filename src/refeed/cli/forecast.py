"""`refeed forecast`: the curve ahead, from the first generations' losses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from refeed.cli.options import RUNS, Json, WorkspaceAt
from refeed.core.errors import UserError

if TYPE_CHECKING:
    import numpy as np


def forecast(
    curve: Annotated[str, typer.Argument(metavar="RUN|CSV", help="A finished study, or a CSV of generation, loss (and seed).")],
    to: Annotated[int | None, typer.Option("--to", min=2, help="The last generation to forecast, counted from the first.")] = None,
    policy: Annotated[str | None, typer.Option("--policy", help="The policy of the loop; 'unknown' to leave it open.")] = None,
    observe: Annotated[int | None, typer.Option("--observe", min=3, help="Use the first so many generations only.")] = None,
    dimension: Annotated[float | None, typer.Option("--dimension", help="Effective number of parameters, if known.")] = None,
    floor: Annotated[float | None, typer.Option("--floor", help="The loss of a perfect model, if known.")] = None,
    case: Annotated[str | None, typer.Option("--case", help="The case of a study with several.")] = None,
    quantity: Annotated[str | None, typer.Option("--quantity", help="The quantity of a study; its headline.")] = None,
    column: Annotated[str | None, typer.Option("--column", help="The loss column of a CSV.")] = None,
    where: Annotated[list[str] | None, typer.Option("--where", metavar="COLUMN=VALUE", help="Rows of a CSV.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Forecast the known end of a finished study's lineages: do the intervals cover?")
    ] = False,
    lineages: Annotated[int, typer.Option("--lineages", min=1, help="With --check: at most so many of a case and policy.")] = 60,
    workspace: WorkspaceAt = RUNS,
    json_output: Json = False,
) -> None:
    """Forecast a loss curve with intervals, and the chances of collapse, plateau and improvement."""
    from refeed.cli.curves import from_csv, from_study
    from refeed.cli.show import finished
    from refeed.theory import TheoryError
    from refeed.theory.forecast import LEVELS, POLICIES
    from refeed.theory.forecast import forecast as predict

    studies, path = finished(workspace), Path(curve)
    if check:
        from refeed.cli import forecast_check

        if curve not in studies and not (path / "study.json").exists():
            raise UserError(f"--check needs a finished study, and {curve} is none.", hint="Type: refeed run forecast-check")
        folder = studies.get(curve, path)
        rows = forecast_check.check(folder, observe=observe, to=to, policy=policy, case=case, quantity=quantity, most=lineages)
        page = forecast_check.write(folder, rows)
        if json_output:
            print(forecast_check.as_json(rows))
            return
        forecast_check.show(rows)
        print(f"\nPage: {page}")
        return
    if to is None:
        raise UserError(
            "--to is missing: the last generation to forecast.", hint=f"Type, for example: refeed forecast {curve} --to 20"
        )
    if curve in studies or (path / "study.json").exists():
        losses = from_study(studies.get(curve, path), policy=policy, case=case, quantity=quantity)
    else:
        losses = from_csv(path, column=column, where=where or [])
    name = (policy or "unknown").partition(" (")[0]
    shape = name if name in POLICIES else None
    if name != "unknown" and shape is None and not (curve in studies or path.is_dir()):
        raise UserError(f"no growth shape is known for policy {policy!r}.", hint=f"Known: {', '.join(POLICIES)}, or unknown.")
    seen = losses[:, : observe or losses.shape[1]]
    try:
        found = predict(seen, to=to, policy=shape, dimension=dimension, floor=floor)
    except TheoryError as error:
        raise UserError(f"{error}.") from None
    spans = {f"{level:.0%}": list(zip(*(bound.tolist() for bound in found.interval(level)), strict=True)) for level in LEVELS}
    ahead = [
        {"generation": int(generation), "median": float(median)} | {level: pairs[i] for level, pairs in spans.items()}
        for i, (generation, median) in enumerate(zip(found.generations, found.median, strict=True))
    ]
    if json_output:
        told = {"observed": seen.shape[1], "lineages": len(seen), "policy": shape, "decision": found.decision}
        print(json.dumps(told | {"chances": dict(found.chances), "shapes": dict(found.shapes), "ahead": ahead}))
        return
    _show(seen, ahead, found, shape)


def _show(seen: np.ndarray, ahead: list[dict[str, Any]], found: Any, policy: str | None) -> None:
    from rich.console import Console
    from rich.table import Table

    lineages, k = seen.shape
    seeds = "1 lineage" if lineages == 1 else f"the mean of {lineages} lineages"
    print(f"\n{k} generations of {seeds} observed, policy {policy or 'not told'}\n")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("generation", "median", "50 %", "80 %", "95 %"):
        table.add_column(name, justify="right")
    table.add_row(f"{k} (observed)", f"{seen[:, -1].mean():.4g}", "", "", "")
    step = max(1, len(ahead) // 12)
    for row in [*ahead[:-1:step], ahead[-1]]:
        spans = [f"{row[level][0]:.4g} to {row[level][1]:.4g}" for level in ("50%", "80%", "95%")]
        table.add_row(str(row["generation"]), f"{row['median']:.4g}", *spans)
    Console(width=130).print(table)
    chances = ", ".join(f"{name} {chance:.0%}" for name, chance in found.chances.items())
    print(f"\n{found.decision.capitalize()}: {chances}.")
    last = ahead[-1]["generation"]
    print(f"Collapse: from generation {k} to {last} the loss grows by more than three quarters of what it grew before.")
    if policy is None:
        print("The policy was not told: a few points alone say little about the shape of what comes. Type: --policy NAME")
    print("How well these intervals cover: docs/theory/forecast.md.")

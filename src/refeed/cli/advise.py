"""`refeed advise`: what each policy costs in error, the best schedule of a budget, and how much must stay real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from refeed.cli.options import Json
from refeed.core.errors import UserError

if TYPE_CHECKING:
    from refeed.theory.plans import Outlook, RealShare

ASSUMPTIONS = """Assumes: least squares, or any regular maximum-likelihood fit with as many parameters as --dimension;
unbiased refits (temperature 1, no truncation); labels as noisy as the real ones. Errors are excess errors in units of the
first model's. Biased refits grow faster."""

RULE = """The rule: keep the real rows and every batch; generate early, in one large batch from the model nearest to the real data,
then add as little as you must. Never replace."""


def advise(
    real: Annotated[int, typer.Option("--real", min=2, help="Real rows there are.")],
    rows: Annotated[int | None, typer.Option("--rows", min=1, help="Synthetic rows a generation; as many as real ones.")] = None,
    generations: Annotated[int, typer.Option("--generations", min=1, help="Models in a row, the first on real rows.")] = 10,
    dimension: Annotated[int, typer.Option("--dimension", min=1, help="Parameters that the rows determine.")] = 1,
    storage: Annotated[int | None, typer.Option("--storage", min=2, help="Rows that can be kept.")] = None,
    cost_ratio: Annotated[float | None, typer.Option("--cost-ratio", help="Price of a real row in synthetic ones.")] = None,
    generated: Annotated[int | None, typer.Option("--generated", help="Synthetic rows to make in all.")] = None,
    compute: Annotated[int | None, typer.Option("--compute", help="Rows to train on, over all generations together.")] = None,
    minimum: Annotated[
        int | None, typer.Option("--minimum", min=1, help="Least synthetic rows a generation of a schedule; a tenth of --rows.")
    ] = None,
    plan: Annotated[str | None, typer.Option("--plan", help="Your own batches, real rows first: 100,50,50.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the errors by generation into this SVG file.")] = None,
    json_output: Json = False,
) -> None:
    """Before a GPU-hour is spent: what each policy costs in error, the best schedule of a budget, how much must stay real."""
    from refeed.theory import TheoryError
    from refeed.theory.plans import outlooks, real_share

    synthetic = rows or real
    least = minimum or max(1, synthetic // 10)
    try:
        found = outlooks(real=real, rows=synthetic, generations=generations, dimension=dimension, storage=storage)
        share = real_share(fitted=max(real + synthetic, dimension + 2), dimension=dimension, cost_ratio=cost_ratio)
        schedules = _schedules(real, generations, dimension, least, generated=generated, compute=compute, storage=storage)
        own = _own(plan, real, dimension, least) if plan else None
    except TheoryError as error:
        raise UserError(f"{error}.") from None
    if plot is not None:
        _draw(found, plot)
    if json_output:
        policies = [vars(outlook) | {"error": outlook.error.tolist()} for outlook in found]
        print(json.dumps({"policies": policies, "real_share": vars(share), "schedules": schedules, "plan": own}))
        return
    _table(found, real, synthetic, generations)
    _print_schedules(schedules, own)
    _print_share(share, real + synthetic, cost_ratio)
    print(f"\n{RULE}\n{ASSUMPTIONS}")
    if plot is not None:
        print(f"\nFigure: {plot}")


def _print_share(share: RealShare, fitted: int, cost_ratio: float | None) -> None:
    print("\nHow much must stay real")
    print("  in a stream that accumulates for ever: half of all rows, to keep learning at the rate of real data")
    bounded = "any share above none" if share.pooled * fitted <= 1 else f"at least {share.pooled:.0%}"
    print(f"  of {fitted:,} rows fitted together, the real ones fresh each time: {bounded}, for the error to stay bounded")
    if share.bought is None or share.gain is None:
        return
    if share.gain <= 1:
        print(f"  for money, a real row costing {cost_ratio:g} synthetic ones: buy real rows only")
        return
    print(f"  for money, a real row costing {cost_ratio:g} synthetic ones: {share.bought:.1%} of the rows real, weighing more; the")
    print(f"  error is {share.gain:.2f} times lower than real rows alone buy")


def _schedules(real: int, generations: int, dimension: int, minimum: int, **limits: int | None) -> list[dict[str, Any]]:
    from refeed.theory.plans import BUDGETS, best_schedule, schedule_error, spending

    found = []
    for budget in BUDGETS:
        limit = limits[budget]
        if limit is None or (budget == "storage" and limit < real + minimum * (generations - 1)):
            continue  # not asked, or accumulating does not fit the storage, as the table shows
        best = best_schedule(
            real=real,
            generations=generations,
            budget=budget,
            limit=limit,
            minimum=minimum,
            dimension=dimension,
            spend_all=budget == "generated",
        )
        error, spent = schedule_error(best, dimension=dimension), spending(best, budget)
        found.append({"budget": budget, "limit": limit, "batches": best.tolist(), "error": error, "spent": spent})
    return found


def _own(plan: str, real: int, dimension: int, minimum: int) -> dict[str, Any]:
    from refeed.theory.plans import best_schedule, schedule_error, spending

    try:
        batches = [int(entry) for entry in plan.strip("[] ").split(",")]
    except ValueError:
        raise UserError(f"--plan takes whole numbers, not {plan!r}.", hint="Type, for example: --plan 100,50,50") from None
    if batches[0] != real or len(batches) < 2 or min(batches) < 1:
        raise UserError(f"--plan must start with the {real} real rows and go on with synthetic ones, not {plan}.")
    least = min(minimum, *batches[1:])
    limit = spending(batches, "generated")
    best = best_schedule(
        real=real,
        generations=len(batches),
        budget="generated",
        limit=limit,
        minimum=least,
        dimension=dimension,
        spend_all=True,
    )
    error, least_error = schedule_error(batches, dimension=dimension), schedule_error(best, dimension=dimension)
    return {
        "batches": batches,
        "error": error,
        "best": best.tolist(),
        "best_error": least_error,
        "worse_by": error / least_error - 1,
    }


def _table(found: list[Outlook], real: int, rows: int, generations: int) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=150)
    console.print(f"\n{real:,} real rows, {rows:,} synthetic a generation, {generations} generations\n", highlight=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("policy", "last error", "kept rows", "rows trained on", "generated", "kind", ""):
        table.add_column(column, justify="left" if column in ("policy", "kind", "") else "right")
    for outlook in found:
        numbers = (f"{outlook.error[-1]:.3f}", f"{outlook.stored:,.0f}", f"{outlook.trained:,.0f}", f"{outlook.generated:,.0f}")
        table.add_row(outlook.policy, *numbers, outlook.kind, outlook.note)
    console.print(table)


def _print_schedules(schedules: list[dict[str, Any]], own: dict[str, Any] | None) -> None:
    names = {"generated": "rows generated", "compute": "rows trained on", "storage": "rows stored"}
    for entry in schedules:
        print(f"\nBest schedule of accumulate for {entry['limit']:,} {names[entry['budget']]}: last error {entry['error']:.4f}")
        print(f"  {_runs(entry['batches'])}")
    if own:
        print(f"\nYour plan {_runs(own['batches'])}: last error {own['error']:.4f}")
        best = f"{_runs(own['best'])}, {own['best_error']:.4f}"
        print(f"  {own['worse_by']:.1%} worse than the best with as many rows generated: {best}")


def _runs(batches: list[int]) -> str:
    """100, 360, then 8 x 10."""
    head, last = list(batches), batches[-1]
    while head and head[-1] == last:
        head.pop()
    count = len(batches) - len(head)
    tail = [f"then {count} x {last:,}"] if count > 2 and head else [f"{last:,}"] * count
    return ", ".join([f"{batch:,}" for batch in head] + tail)


def _draw(found: list[Outlook], path: Path) -> None:
    import altair as alt

    if path.suffix != ".svg":
        raise UserError(f"--plot draws SVG: {path} must end in .svg.")
    rows = [
        {"policy": outlook.policy, "generation": generation, "error": float(error)}
        for outlook in found
        for generation, error in enumerate(outlook.error, start=1)
    ]
    order = [outlook.policy for outlook in reversed(found)]
    chart = (
        alt.Chart(alt.Data(values=rows), width=520, height=320)
        .mark_line(point=len(found[0].error) <= 20)
        .encode(
            x=alt.X("generation:Q", title="generation", axis=alt.Axis(tickMinStep=1)),
            y=alt.Y("error:Q", title="excess error (first: 1)", scale=alt.Scale(type="log", nice=False)),
            color=alt.Color("policy:N", sort=order, title=None, scale=alt.Scale(scheme="tableau20")),
        )
    )
    try:
        chart.save(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.") from None

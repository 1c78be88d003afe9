"""`refeed plan`: every step, which are done, and what the rest will cost, before anything runs."""

from __future__ import annotations

import json
import math
from typing import Annotated

import typer

from refeed.cli import tables
from refeed.cli.options import RUNS, EngineOption, Json, Overrides, Scale, ScaleOption, StudyName, WorkspaceAt

Scripts = Annotated[bool, typer.Option("--scripts", help="Print the batch scripts that the engine would submit.")]
Devices = Annotated[str | None, typer.Option("--devices", help="Time on so many devices: 1,2,8,64 unless given.")]
Flops = Annotated[float | None, typer.Option("--flops", help="Operations that one device does in a second, as in 4e14.")]
Calibrate = Annotated[bool, typer.Option("--calibrate", help="Measure that here, for each kind of step; takes about a minute.")]
Price = Annotated[float | None, typer.Option("--price", help="Of one device for one hour.")]


def plan(
    study: StudyName,
    overrides: Overrides = None,
    workspace: WorkspaceAt = RUNS,
    scale: ScaleOption = None,
    engine: EngineOption = None,
    scripts: Scripts = False,
    devices: Devices = None,
    flops: Flops = None,
    calibrate: Calibrate = False,
    price: Price = None,
    json_output: Json = False,
) -> None:
    """Print every step of a study, which are done, and what the rest will cost. Runs nothing."""
    from refeed.cli.outlook import outlook, show
    from refeed.core.errors import EngineError
    from refeed.studies import load_study
    from refeed.studies.costs import measured_rates
    from refeed.studies.engines import build_engine
    from refeed.studies.estimate import estimate
    from refeed.studies.tasks import plan as make_plan
    from refeed.workspace import open_workspace

    _refuse_odd("--flops", flops, "4e14")
    _refuse_odd("--price", price, "3")
    how, rest = build_engine(engine, overrides or [])
    chosen = load_study(study, overrides=rest, scale=scale.value if isinstance(scale, Scale) else scale)
    store = open_workspace(workspace)
    todo = make_plan(chosen, store)
    if scripts:
        if not hasattr(how, "scripts"):
            raise EngineError(f"the engine {how.name} submits no scripts.", hint="Type: --engine slurm --scripts")
        for title, text in how.scripts(todo, store):
            print(f"#{'-' * 20} {title}\n{text}")
        return
    lines = estimate(todo, store)
    ahead = None
    if engine or devices or flops or calibrate or price is not None:
        rates = measured_rates(chosen) if calibrate else {}
        ahead = outlook(todo, store, devices=_numbers(devices), flops=flops, rates=rates, price=price, graph=engine is not None)
    if json_output:
        starts = {case.name: {"name": case.start, "digest": case.given.digest} for case in chosen.cases if case.given}
        about = {"study": chosen.name, "digest": chosen.digest, "steps": lines}
        print(json.dumps(about | ({"starts": starts} if starts else {}) | ({"outlook": ahead} if ahead else {})))
        return
    from rich.table import Table

    console = tables.console(132)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("case", "step", "all", "done", "to do", "rows to do", "estimate"):
        table.add_column(column, justify="left" if column in ("case", "step") else "right")
    for line in lines:
        seconds = line["seconds"]
        cost = "-" if not line["todo"] else "not known yet" if seconds is None else f"{seconds:.1f} s"
        counts = (str(line["steps"]), str(line["steps"] - line["todo"]), str(line["todo"]), f"{line['rows']:,}")
        table.add_row(line["case"], line["step"], *counts, cost)
    arms = f"{len(chosen.arms)} lineages: {len(chosen.cases)} cases x {len(chosen.policies)} policies x {len(chosen.seeds)} seeds"
    console.print(f"\n[bold]{chosen.name}[/bold]: {arms}, {chosen.generations} generations each\n")
    console.print(table)
    for case in chosen.cases:
        if case.given is not None:
            console.print(f"\n{case.name}: every model begins from the weights of {case.start} (content {case.given.digest[:12]}).")
    if ahead is not None:
        show(ahead, console)
        return
    known = [line["seconds"] for line in lines if line["todo"]]
    if not known:
        console.print("\nEverything is done.")
    elif None in known:
        console.print("\nEstimates come from steps of the same kind in this workspace; some kinds have not run yet.")
    else:
        console.print(f"\nTo do: about {sum(known):,.0f} s on one processor.")


def _refuse_odd(option: str, value: float | None, example: str) -> None:
    from refeed.core.errors import StudyError

    if value is not None and not 0 < value < math.inf:
        raise StudyError(f"{option} takes a number above zero, not {value:g}.", hint=f"Type: {option} {example}")


def _numbers(text: str | None) -> tuple[int, ...]:
    from refeed.cli.outlook import DEVICES
    from refeed.core.errors import StudyError

    try:
        numbers = tuple(int(word) for word in text.split(",")) if text else DEVICES
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise StudyError(f"--devices takes numbers of devices, not {text!r}.", hint="Type: --devices 1,2,8,64")
    return numbers

"""`refeed plan`: every step, which are done, and what the rest will cost, before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from refeed.cli.options import EngineOption, Json, Overrides, Scale, ScaleOption, StudyName, WorkspacePath

Scripts = Annotated[bool, typer.Option("--scripts", help="Print the batch scripts that the engine would submit.")]


def plan(
    study: StudyName,
    overrides: Overrides = None,
    workspace: WorkspacePath = Path("runs"),
    scale: ScaleOption = None,
    engine: EngineOption = None,
    scripts: Scripts = False,
    json_output: Json = False,
) -> None:
    """Print every step of a study, which are done, and what the rest will cost. Runs nothing."""
    from refeed.core.errors import EngineError
    from refeed.studies import load_study
    from refeed.studies.engines import build_engine
    from refeed.studies.estimate import estimate
    from refeed.studies.tasks import plan as make_plan
    from refeed.workspace import Workspace

    how, rest = build_engine(engine, overrides or [])
    chosen = load_study(study, overrides=rest, scale=scale.value if isinstance(scale, Scale) else scale)
    store = Workspace(workspace)
    todo = make_plan(chosen, store)
    if scripts:
        if not hasattr(how, "scripts"):
            raise EngineError(f"the engine {how.name} submits no scripts.", hint="Type: --engine slurm --scripts")
        for title, text in how.scripts(todo, store):
            print(f"#{'-' * 20} {title}\n{text}")
        return
    lines = estimate(todo, store)
    if json_output:
        starts = {case.name: {"name": case.start, "digest": case.given.digest} for case in chosen.cases if case.given}
        print(json.dumps({"study": chosen.name, "digest": chosen.digest, "steps": lines} | ({"starts": starts} if starts else {})))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
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
    known = [line["seconds"] for line in lines if line["todo"]]
    if not known:
        console.print("\nEverything is done.")
    elif None in known:
        console.print("\nEstimates come from steps of the same kind in this workspace; some kinds have not run yet.")
    else:
        console.print(f"\nTo do: about {sum(known):,.0f} s on one processor.")

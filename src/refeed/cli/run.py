"""`refeed run` and `refeed demo`: do a study and write its report."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import typer

from refeed.cli.options import RUNS, EngineOption, Json, Overrides, Scale, ScaleOption, StudyName, Workers, WorkspaceAt


def demo(workspace: WorkspaceAt = RUNS, workers: Workers = 2, json_output: Json = False) -> None:
    """Answer the paper's question on embedded data: replace against accumulate, in under three minutes."""
    run("demo", None, workspace, None, None, workers, json_output)


def run(
    study: StudyName,
    overrides: Overrides = None,
    workspace: WorkspaceAt = RUNS,
    scale: ScaleOption = None,
    engine: EngineOption = None,
    workers: Workers = None,
    json_output: Json = False,
) -> None:
    """Run a study: whatever is not yet done, then print its table and write its report."""
    from refeed.cli.progress import Display
    from refeed.core.errors import UserError
    from refeed.studies import engines, load_study
    from refeed.studies.run import results_folder
    from refeed.studies.run import run as run_study
    from refeed.workspace import open_workspace
    from refeed.workspace.files import plain_errors

    how, rest = engines.build_engine(engine, overrides or [], workers=workers)
    chosen = load_study(study, overrides=rest, scale=scale.value if isinstance(scale, Scale) else scale)
    store = open_workspace(workspace)
    command = shlex.join(["refeed", *sys.argv[1:]])
    with Display(quiet=json_output) as display:
        results = run_study(chosen, workspace=store, engine=how, listener=display.event, on_plan=display.plan, command=command)
    try:
        plain = load_study(study)
    except UserError:  # the file needs an override, such as a path
        plain = None
    folder = results_folder(store, chosen, plain)
    with plain_errors("writing the results", store.path):
        results.save(folder)
        try:
            finish(results, folder, json_output=json_output)
        finally:
            store.share(folder)


def finish(results: Any, folder: Path, *, json_output: bool) -> None:
    """Print the table, write the report, say where it lies, and exit 1 if a lineage failed."""
    from refeed.cli.tables import as_json, print_summary
    from refeed.report import write

    clock = time.perf_counter()
    page = write(folder)
    failed = [row for row in results.outcomes.to_pylist() if row["outcome"] in ("failed", "not run")]
    if json_output:
        print(json.dumps({"report": str(page), "rows": as_json(results), "run": results.run}, default=str))
    else:
        print_summary(results)
        print(f"\n{_cost(results.run)} The report took {time.perf_counter() - clock:.1f} s.\n\nReport: {page}")
    if failed:
        for row in failed[:3]:
            where = f"{row['case']}, {row['policy']}, seed {row['seed']}"
            print(f"failed: {where}: {row['sentence']}", file=sys.stderr)
        print(f"{len(failed)} lineages did not end; {folder / 'run.json'} holds what went wrong.", file=sys.stderr)
        raise typer.Exit(1)


def _cost(run: dict[str, Any]) -> str:
    done = sum(int(kind["run"]) for kind in run["steps"].values())
    reused = sum(int(kind["reused"]) for kind in run["steps"].values())
    return f"{done:,} steps run, {reused:,} reused, in {run['wall_seconds']:.1f} s."

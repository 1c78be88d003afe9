"""`refeed show`: the table of a finished study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from refeed.cli.options import RUNS, Json, WorkspaceAt


def show(
    study: Annotated[str | None, typer.Argument(help="A study of the workspace; without it, all are listed.")] = None,
    workspace: WorkspaceAt = RUNS,
    ledger: Annotated[
        bool, typer.Option("--ledger", help="What every generation was trained on, by origin, and its cost.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Print the table of a study that was run, or list the studies of a workspace."""
    from refeed.cli.ledger import ledger_rows, print_ledger
    from refeed.cli.tables import as_json, print_summary
    from refeed.core.errors import StudyError
    from refeed.report import Results

    found = finished(workspace)
    if study is None:
        if not found:
            raise StudyError(f"nothing was run in {workspace} yet.", hint="Type: refeed demo")
        for name, folder in found.items():
            print(f"{name}\t{folder / 'report.html'}")
        return
    results = Results.load(pick(study, found, workspace))
    if ledger:
        print(json.dumps(ledger_rows(results))) if json_output else print_ledger(results)
    elif json_output:
        print(json.dumps(as_json(results), default=str))
    else:
        print_summary(results)


def finished(workspace: str) -> dict[str, Path]:
    """The result folders of a workspace by name; those of one at a URL are brought here first."""
    from refeed.workspace.objects import is_url

    path = Path(workspace)
    if is_url(workspace):
        from refeed.workspace import RemoteWorkspace

        store = RemoteWorkspace(workspace)
        store.bring_results()
        path = store.path
    folders = sorted((path / "studies").glob("*/study.json")) if path.is_dir() else []
    return {path.parent.name: path.parent for path in folders}


def pick(study: str, found: dict[str, Path], workspace: str) -> Path:
    from refeed.catalogue import did_you_mean
    from refeed.core.errors import StudyError

    if study not in found:
        known = f"There: {', '.join(found)}." if found else f"Nothing was run there yet. Type: refeed run {study}"
        raise StudyError(f"{workspace} has no results of {study!r}{did_you_mean(study, found)}", hint=known)
    return found[study]

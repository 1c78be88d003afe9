"""`refeed report`: write the page of a finished study again."""

from __future__ import annotations

from typing import Annotated

import typer

from refeed.cli.options import RUNS, WorkspaceAt


def report(
    study: Annotated[str, typer.Argument(help="A study of the workspace (see: refeed show).")],
    workspace: WorkspaceAt = RUNS,
) -> None:
    """Write the report of a study that was run: one HTML file, and every figure as SVG and PDF."""
    from refeed.cli.show import finished, pick
    from refeed.report import write
    from refeed.workspace import open_workspace
    from refeed.workspace.objects import is_url

    folder = pick(study, finished(workspace), workspace)
    print(write(folder))
    if is_url(workspace):
        open_workspace(workspace).share(folder)

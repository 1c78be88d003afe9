"""`refeed report`: write the page of a finished study again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from refeed.cli.options import WorkspacePath


def report(
    study: Annotated[str, typer.Argument(help="A study of the workspace (see: refeed show).")],
    workspace: WorkspacePath = Path("runs"),
) -> None:
    """Write the report of a study that was run: one HTML file, and every figure as SVG and PDF."""
    from refeed.cli.show import finished, pick
    from refeed.report import write

    print(write(pick(study, finished(workspace), workspace)))

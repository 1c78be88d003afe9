"""Options that several verbs share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

StudyName = Annotated[str, typer.Argument(help="A shipped study (see: refeed studies) or the path of a TOML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the study. May be repeated."),
]
RUNS = "runs"
WorkspaceAt = Annotated[
    str,
    typer.Option("--workspace", metavar="FOLDER|URL", help="Where steps and results are kept: a folder, or as s3://bucket/prefix."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of a table.")]


def folder_of(workspace: str, verb: str) -> Path:
    """The folder of a workspace, for a verb that works on folders alone."""
    from refeed.core.errors import UserError
    from refeed.workspace.objects import is_url

    if is_url(workspace):
        message = f"refeed {verb} works on a folder of this machine, and {workspace} is none."
        raise UserError(message, hint="With a URL work: run, plan, show, report, export, forecast.")
    return Path(workspace)


class Scale(StrEnum):
    """One dial that sets sizes coherently."""

    tiny = "tiny"
    small = "small"
    paper = "paper"


ScaleOption = Annotated[Scale | None, typer.Option("--scale", help="Sizes: tiny, small or paper.")]
EngineOption = Annotated[
    str | None, typer.Option("--engine", help="Who does the steps: inline, process, ray, slurm. Its options: --set NAME.option=...")
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="At most so many steps at a time; above 1 means --engine process.")
]

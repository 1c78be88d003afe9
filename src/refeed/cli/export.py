"""`refeed export`: the training set of any generation as Parquet, with the provenance of every row and a data card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from refeed.cli.options import RUNS, Json, Overrides, ScaleOption, StudyName, WorkspaceAt


def export(
    study: StudyName,
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="A new folder for the data and its card.")],
    case: Annotated[str | None, typer.Option("--case", help="Which case; may be left out where there is one.")] = None,
    policy: Annotated[str | None, typer.Option("--policy", help="Which policy; may be left out where there is one.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Which lineage; the first if left out.")] = None,
    generation: Annotated[int | None, typer.Option("--generation", help="Whose training set; the last if left out.")] = None,
    overrides: Overrides = None,
    workspace: WorkspaceAt = RUNS,
    scale: ScaleOption = None,
    json_output: Json = False,
) -> None:
    """Write the training set of any generation as Parquet, with the provenance of every row and a data card."""
    from refeed.studies import load_study
    from refeed.studies.export import export as write
    from refeed.studies.export import pick
    from refeed.workspace import open_workspace

    chosen = load_study(study, overrides=overrides or [], scale=scale.value if scale is not None else None)
    arm, turn = pick(chosen, case=case, policy=policy, seed=seed, generation=generation)
    about = write(chosen, open_workspace(workspace), arm, turn, to)
    if json_output:
        print(json.dumps(about | {"folder": str(to)}))
        return
    real = about["rows_by_generation"].get(0, 0)
    place = f"{arm.case.name}, {arm.policy}, seed {arm.seed}, generation {turn.generation}"
    print(f"{place}: {about['rows']:,} rows, {real:,} of them real.\n\n{to / 'README.md'}")

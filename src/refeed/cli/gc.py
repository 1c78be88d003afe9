"""`refeed gc`: free what no study of the workspace needs; without --yes it only says what that is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from refeed.cli.options import RUNS, Json, WorkspaceAt, folder_of

if TYPE_CHECKING:
    from refeed.workspace.garbage import Findings


def gc(
    workspace: WorkspaceAt = RUNS,
    yes: Annotated[bool, typer.Option("--yes", help="Do it.")] = False,
    unrecorded: Annotated[
        bool, typer.Option("--unrecorded", help="Also what only killed runs, and runs from Python without results, need.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Free the steps that no study of the workspace needs. Says first what it would free; does it with --yes."""
    from refeed.core.errors import UserError
    from refeed.workspace import Workspace
    from refeed.workspace.files import plain_errors
    from refeed.workspace.garbage import collect, find

    folder = folder_of(workspace, "gc")
    if not (folder / "refeed.json").is_file():
        raise UserError(
            f"{workspace} is not a refeed workspace (there is no refeed.json).", hint="Type: refeed gc --workspace FOLDER"
        )
    store = Workspace(folder)
    with plain_errors("freeing steps", folder):
        found = collect(store, unrecorded=unrecorded) if yes else find(store, unrecorded=unrecorded)
    if json_output:
        print(json.dumps(_as_json(found) | {"freed": yes}))
        return
    _print(found, done=yes)
    if found.free and not yes:
        print(
            f"\nNothing was removed. To do it, type: refeed gc --yes{' --unrecorded' if unrecorded else ''} --workspace {workspace}"
        )


def _kinds(found: Findings) -> dict[str, tuple[int, int]]:
    kinds: dict[str, tuple[int, int]] = {}
    for item in found.free:
        count, size = kinds.get(item.kind, (0, 0))
        kinds[item.kind] = (count + 1, size + item.bytes)
    return kinds


def _print(found: Findings, *, done: bool) -> None:
    from refeed.cli.ledger import human

    recorded = f"{len(found.studies)} {'study' if len(found.studies) == 1 else 'studies'} ({', '.join(found.studies) or 'none'})"
    print(f"Needed: {found.num_kept:,} steps, {human(found.bytes_kept)}, by {recorded}.")
    for name, steps in found.unrecorded.items():
        if steps:
            print(f"  {steps:,} of them only by a run of {name!r} that left no results here; --unrecorded frees them too.")
    if not found.free:
        print("There is nothing to free.")
        return
    print(f"{'Freed' if done else 'Would be freed'}: {human(found.bytes_free)}")
    for kind, (count, size) in sorted(_kinds(found).items()):
        print(f"  {count:>7,} {kind:<10} {human(size):>10}")


def _as_json(found: Findings) -> dict[str, Any]:
    kinds = {kind: {"count": count, "bytes": size} for kind, (count, size) in _kinds(found).items()}
    kept: dict[str, Any] = {"count": found.num_kept, "bytes": found.bytes_kept, "studies": list(found.studies)}
    return {"free": kinds, "bytes": found.bytes_free, "kept": kept, "unrecorded": found.unrecorded}

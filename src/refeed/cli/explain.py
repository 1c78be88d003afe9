"""`refeed explain`: walk a shard, or one row of it, back to real data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from refeed.cli.options import RUNS, Json, WorkspaceAt, folder_of

if TYPE_CHECKING:
    from refeed.core.rows import Rows
    from refeed.workspace.provenance import Node, Provenance

LISTED = 40


def explain(
    shard: Annotated[
        str | None, typer.Argument(metavar="SHARD[:ROW]", help="The first digits of a digest; a row counts from 0. None: list.")
    ] = None,
    workspace: WorkspaceAt = RUNS,
    depth: Annotated[int, typer.Option("--depth", min=0, help="How many models deep the tree goes; 0: all of them.")] = 6,
    json_output: Json = False,
) -> None:
    """Walk a shard, or one row of it, back to real data. Reads manifests; runs nothing."""
    from refeed.core.errors import UserError
    from refeed.workspace.provenance import Provenance, as_json, given, tree

    provenance = Provenance(folder_of(workspace, "explain"))
    if shard is None:
        _list(provenance, json_output=json_output)
        return
    prefix, colon, position = shard.partition(":")
    if colon and not position.isdigit():
        raise UserError(f"{position!r} is not a row: rows count from 0.", hint=f"Type: refeed explain {prefix}:0")
    node = provenance.find(prefix)
    row = _row(provenance, node, int(position)) if colon else None
    if json_output:
        print(json.dumps(as_json(provenance, node.digest) | ({"row": row} if row else {})))
        return
    if row:
        known = {True: "real", False: "given as real, but synthetic by its file"}
        origin = known.get(row["real"]) or given(node.manifest.get("origins"))
        if not node.is_real:
            origin = f"synthetic, generation {row['generation']}, depth {_number(row['depth'])}"
        print(f"row {row['row']} of shard {node.digest[:12]}: {origin}")
        for name, value in row["values"].items():
            print(f"  {name}: {_short(value)}")
        print()
    for line in tree(provenance, node.digest, max_models=depth or None):
        print(line)


def _row(provenance: Provenance, node: Node, position: int) -> dict[str, Any]:
    from refeed.core.errors import UserError
    from refeed.workspace.provenance import real_rows
    from refeed.workspace.shards import read_row, shard_file

    if node.is_model:
        raise UserError(f"{node.digest[:12]} is a model; it has no rows.", hint=f"Type: refeed explain {node.digest[:12]}")
    rows = read_row(shard_file(provenance.folder(node.digest), node.kind), position)
    depth = provenance.depth(node.digest)
    real = real_rows(rows["refeed_given"], node.said)[0] if "refeed_given" in rows.names else node.real
    place = {"shard": node.digest, "row": position, "real": real, "generation": provenance.generation(node)}
    return place | {"depth": None if depth != depth else depth, "values": _values(provenance, node, rows)}


def _values(provenance: Provenance, node: Node, rows: Rows) -> dict[str, Any]:
    """The row's columns, and before them what makes it readable, where its family offers that."""
    from refeed import catalogue

    values = {name: rows.to_arrow().column(name)[0].as_py() for name in rows.names}
    world = provenance.world(node)
    decode = catalogue.decoder(provenance.node(world.name).manifest["source"]["kind"]) if world is not None else None
    if decode is None or world is None:
        return values
    return {name: column[0] for name, column in decode(rows, folder=world).items() if not isinstance(column[0], bytes)} | values


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"


def _short(value: Any, width: int = 400) -> str:
    text = str(value)
    return text if len(text) <= width else f"{text[:width]} ..."


def _list(provenance: Provenance, *, json_output: bool) -> None:
    """The shards of the workspace, the latest first."""
    shards = sorted((node for node in provenance if not node.is_model), key=lambda node: -node.manifest.get("made", 0))
    if json_output:
        about = [{"shard": n.digest, "rows": n.rows, "generation": provenance.generation(n), "real": n.real} for n in shards]
        print(json.dumps(about))
        return
    for node in shards[:LISTED]:
        origin = "real" if node.is_real else f"generation {provenance.generation(node)}"
        print(f"{node.digest}  {node.rows:>12,} rows  {origin}, seed {node.manifest.get('seed')}")
    if len(shards) > LISTED:
        print(f"... {len(shards) - LISTED} more; all of them: refeed explain --json")
    if not shards:
        print(f"{provenance.path} keeps no rows. Families that rebuild their rows keep recipes only; see: refeed export")

"""Exporting the training set of one generation: Parquet with a column for every part of a row's provenance, and a card."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from refeed import catalogue
from refeed.core.errors import Damaged, StudyError, UserError
from refeed.core.loop import Turn
from refeed.core.memory import Memory
from refeed.core.rows import Rows
from refeed.core.shards import Part
from refeed.core.steps import POSITION, Draw, Measure, Step, rows_of
from refeed.studies.card import write_card
from refeed.studies.study import Arm, Study
from refeed.workspace import Workspace
from refeed.workspace.artefacts import describe
from refeed.workspace.files import plain_errors, verify
from refeed.workspace.provenance import real_rows
from refeed.workspace.shards import shard_file, tables

if TYPE_CHECKING:
    import pyarrow as pa

DATA = "data/train-00000-of-00001.parquet"
ALTERED = {"refeed_row": "refeed_candidate", "refeed_score": "refeed_score"}  # what a filter notes of the rows it chose
Decode = Callable[..., dict[str, list[Any]]]


def pick(study: Study, *, case: str | None, policy: str | None, seed: int | None, generation: int | None) -> tuple[Arm, Turn]:
    """The lineage and generation that are meant; what is left out must be the only one (seed: the first; generation: the last)."""
    cases = {c.name: c for c in study.cases}
    for name, chosen, known in (("case", case, cases), ("policy", policy, study.policies)):
        if chosen is None and len(known) > 1:
            raise StudyError(f"{study.name} has {len(known)} choices of --{name}.", hint=f"Choose one: {', '.join(known)}.")
        if chosen is not None and chosen not in known:
            raise StudyError(
                f"{name} {chosen!r} is not in this study{catalogue.did_you_mean(chosen, known)}.",
                hint=f"There: {', '.join(known)}.",
            )
    wanted = (case or next(iter(cases)), policy or next(iter(study.policies)), study.seeds[0] if seed is None else seed)
    arm = next((a for a in study.arms if (a.case.name, a.policy, a.seed) == wanted), None)
    if arm is None:
        raise StudyError(f"seed {seed} is not in this study.", hint=f"There: {', '.join(map(str, study.seeds))}.")
    last = len(arm.turns)
    if generation is not None and not 1 <= generation <= last:
        raise StudyError(f"generation {generation} is not in this study.", hint=f"There: 1 to {last}.")
    return arm, arm.turns[(generation or last) - 1]


def export(study: Study, store: Workspace, arm: Arm, turn: Turn, folder: Path) -> dict[str, Any]:
    """Write the training set of `turn` into a new folder, part by part; returns what the card says of it. Trains nothing."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already.", hint="Name a new folder: --to FOLDER")
    temporary = folder.absolute().with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    with plain_errors("exporting", folder.absolute().parent):
        try:
            (temporary / "data").mkdir(parents=True)
            store.bring([turn.model.draw, *(part.shard.step for part in turn.train)])
            columns = _write(arm, turn, store, temporary / DATA)
            steps = {step.digest: describe(step) for step in _ancestors(turn.model)}
            (temporary / "provenance.json").write_text(json.dumps(steps, indent=1), encoding="utf-8")
            about = {
                "study": study.name,
                "question": study.question,
                "case": arm.case.name,
                "family": arm.case.family,
                "policy": arm.policy,
                "seed": arm.seed,
                "generation": turn.generation,
                "rows": turn.train.num_rows,
                "rows_by_generation": turn.train.rows_by_generation(),
                "model": turn.model.digest,
                "start": [arm.case.start, arm.case.given.digest] if arm.case.given else None,
                "columns": columns,
            }
            write_card(temporary, about, data=DATA)
            if folder.exists():
                folder.rmdir()
            os.replace(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return about


def _ancestors(step: Step) -> list[Step]:
    """All that `step` stands on and itself, each once."""
    found: dict[str, Step] = {}
    stack = [step]
    while stack:
        current = stack.pop()
        if current.digest not in found and not isinstance(current, Measure):
            found[current.digest] = current
            stack.extend(current.inputs())
    return list(found.values())


def _write(arm: Arm, turn: Turn, store: Workspace, path: Path) -> dict[str, str]:
    """Write the rows, one row group of one shard at a time; returns the columns and their types."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = f"{type(arm.case.source).__module__}:{type(arm.case.source).__qualname__}"
    decode = None if arm.lineage.source.rebuilds else catalogue.decoder(source)
    world = store.folder(arm.lineage.draw)
    altered = any(part.shard.step.kind not in ("draw", "sample") for part in turn.train)
    memory, writer, more = Memory(), None, _not_in_all(turn, store)
    try:
        for part in turn.train:
            for table in _tables(part, store, memory):
                table = _with_columns(table, part, decode, world, altered=altered)
                for field in more:
                    if field.name not in table.column_names:
                        table = table.append_column(field, pa.nulls(table.num_rows, field.type))
                if writer is None:
                    writer = pq.ParquetWriter(path, table.schema, compression="zstd", write_page_checksum=True)
                writer.write_table(table.select(writer.schema.names).cast(writer.schema))
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        raise UserError(f"the training set of generation {turn.generation} is empty; there is nothing to export.")
    return {field.name: str(field.type) for field in writer.schema}


def _not_in_all(turn: Turn, store: Workspace) -> list[pa.Field]:
    """The data columns that only some of the shards have, as what a sampler says of its rows: null in the others."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schemas = []
    for part in turn.train:
        try:
            schemas.append(pq.read_schema(shard_file(store.folder(part.shard.step), part.shard.step.kind)))
        except (OSError, pa.ArrowException):  # not kept, or damaged: said when its rows are read
            continue
    fields = {field.name: field for schema in schemas for field in schema if not field.name.startswith("refeed_")}
    return [field for name, field in fields.items() if any(name not in schema.names for schema in schemas)]


def _tables(part: Part, store: Workspace, memory: Memory) -> Iterator[pa.Table]:
    """The chosen rows of a part, each with its position in the shard as the column `refeed_position`."""
    import pyarrow as pa

    first = written = 0
    for table in _shard(part, store, memory):
        after = first + table.num_rows
        have = np.arange(first, after)
        if POSITION in table.column_names:  # trimmed: only some rows are left
            have, table = table[POSITION].to_numpy(), table.drop_columns([POSITION])
        positions = have if part.index is None else np.intersect1d(have, part.index)
        table = table.take(pa.array(np.searchsorted(have, positions)))
        first, written = after, written + len(positions)
        yield table.append_column("refeed_position", pa.array(positions, pa.int64()))
    if written != part.num_rows:
        raise UserError(
            f"{part.num_rows - written:,} of the {part.num_rows:,} rows of generation {part.generation} are not stored any more.",
            hint="The study keeps only rows that later generations use. Run it with --set rows=all --workspace NEW, then export.",
        )


def _shard(part: Part, store: Workspace, memory: Memory) -> Iterator[pa.Table]:
    step = part.shard.step
    if step.rebuilds:
        yield rows_of(part.shard, memory.realise).to_arrow()
        return
    folder = store.folder(step)
    again = "Run the study again: whatever is there is reused."
    if not store.has(step):
        raise UserError(f"the rows of generation {part.generation} are not in {store.path}: the study did not get there.", again)
    try:
        verify(folder)
    except Damaged as damage:
        raise Damaged(damage.message, hint=again) from None
    yield from tables(shard_file(folder, step.kind))


def _is_real(part: Part) -> bool | None:
    """Whether the rows of a part are real; None where their own file does not say, or not of all alike."""
    step = part.shard.step
    if not isinstance(step, Draw):
        return False
    origins = getattr(step.source, "origins", None)
    return True if origins is None else {("real",): True, ("synthetic",): False}.get(tuple(origins))


def _real(table: pa.Table, part: Part) -> list[bool | None]:
    """Whether each row is real: as its own file says it row by row, or the same for all."""
    if "refeed_given" not in table.column_names:
        return [_is_real(part)] * table.num_rows
    return real_rows(table["refeed_given"].to_numpy(), getattr(part.shard.step.source, "origin", "unknown"))  # type: ignore[union-attr]


def _with_columns(table: pa.Table, part: Part, decode: Decode | None, world: Path, *, altered: bool) -> pa.Table:
    """The provenance of every row, then what people can read, then the data."""
    import pyarrow as pa

    origin, count = part.shard.origin, table.num_rows
    columns: dict[str, Any] = {
        "refeed_shard": pa.array([part.shard.digest] * count, pa.string()),
        "refeed_row": table.column("refeed_position"),
        "refeed_real": pa.array(_real(table, part), pa.bool_()),
        "refeed_generation": pa.array([origin.generation] * count, pa.int64()),
        "refeed_model": pa.array([origin.model] * count, pa.string()),
        "refeed_weight": pa.array([float(part.weight)] * count, pa.float64()),
    }
    if altered:
        for name, title in ALTERED.items():
            kind = pa.float64() if name == "refeed_score" else pa.int64()
            columns[title] = table.column(name).cast(kind) if name in table.column_names else pa.nulls(count, kind)
    data = table.drop_columns([name for name in table.column_names if name.startswith("refeed_")])
    if decode is not None and count:
        columns |= {name: pa.array(values) for name, values in decode(Rows.from_arrow(data), folder=world).items()}
    fields = [pa.field(name, array.type) for name, array in columns.items()]
    schema = pa.schema([*fields, *(field for field in data.schema if field.name not in columns)])
    return pa.Table.from_arrays(
        [*columns.values(), *(data.column(n) for n in data.column_names if n not in columns)], schema=schema
    )

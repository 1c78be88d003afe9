"""What a step leaves on disk, by kind: a world, a model, or rows; and what is written down about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refeed.core.recipes import recipe
from refeed.core.rows import Rows
from refeed.core.shards import Origin, Pool
from refeed.core.steps import Alter, Draw, Fit, Given, Part, Sample, Step
from refeed.workspace.maps import is_large, mapped
from refeed.workspace.model_card import write_card

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_BYTES = 2**20


def write(step: Step, value: Any, folder: Path) -> None:
    """Write the value of `step` into an empty folder."""
    if isinstance(step, Draw):
        write_rows(value.train, folder / "train.parquet", origin=step.shard.origin, digest=step.digest)
        write_rows(value.test, folder / "test.parquet", origin=step.shard.origin, digest=f"{step.digest}/test")
        value.save_extras(folder)
    elif isinstance(step, Fit):
        (folder / "model").mkdir()
        value.save(folder / "model")
        write_card(step, folder / "model")
        write_selection(step.train, folder / "selection.parquet")
    elif isinstance(step, Sample | Alter):
        write_rows(value, folder / "rows.parquet", origin=step.shard.origin, digest=step.digest)
    elif isinstance(step, Part):
        write_rows(value, folder / "rows.parquet", origin=step.whole.shard.origin, digest=step.digest)
    else:
        raise TypeError(f"steps of kind {step.kind} leave no artefact")


def read(step: Step, folder: Path, *, maps: Path | None = None) -> Any:
    """The value that `write` wrote; large rows as maps of files below `maps`."""
    if isinstance(step, Draw):
        train, test = read_rows(folder / "train.parquet", maps=maps), read_rows(folder / "test.parquet", maps=maps)
        return step.source.load(folder, train=train, test=test)  # type: ignore[attr-defined]
    if isinstance(step, Fit):
        return step.learner.load(folder / "model")  # type: ignore[attr-defined]
    if isinstance(step, Sample | Alter):
        return read_rows(folder / "rows.parquet", maps=maps)
    if isinstance(step, Part):
        return read_rows(folder / "rows.parquet")
    raise TypeError(f"steps of kind {step.kind} leave no artefact")


def describe(step: Step) -> dict[str, Any]:
    """The provenance of an artefact as JSON: enough to walk any row back to real data without running anything."""
    about: dict[str, Any] = {"kind": step.kind, "digest": step.digest, "inputs": [s.digest for s in step.inputs()]}
    if isinstance(step, Draw):
        origins = getattr(step.source, "origins", None)  # what the source's own file says of its rows
        given = {"origins": origins, "said": getattr(step.source, "origin", "unknown")} if origins is not None else {}
        return about | {"source": recipe(step.source), "seed": str(step.seed), "rows": step.shard.num_rows} | given
    if isinstance(step, Fit):
        parts = [
            {
                "shard": part.shard.digest,
                "generation": part.generation,
                "rows": part.num_rows,
                "of": part.shard.num_rows,
                "weight": part.weight,
            }
            for part in step.train
        ]
        start = step.start.digest if isinstance(step.start, Fit) else None
        if isinstance(step.start, Given):
            about["given"] = {"name": step.start.name, "digest": step.start.digest}
        return about | {
            "learner": recipe(step.learner),
            "seed": str(step.seed),
            "start": start,
            "visits": step.visits,
            "train": parts,
        }
    if isinstance(step, Sample):
        return about | {
            "sampler": recipe(step.sampler),
            "seed": str(step.seed),
            "rows": step.num_rows,
            "generation": step.generation,
            "model": step.model.digest,
        }
    if isinstance(step, Alter):
        return about | {
            "alteration": recipe(step.alteration),
            "seed": str(step.seed),
            "rows": step.num_rows,
            "candidates": step.rows.num_rows,
            "generation": step.rows.origin.generation,
            "of": step.rows.digest,
        }
    return about


def write_rows(rows: Rows, path: Path, *, origin: Origin, digest: str) -> None:
    """Rows as Parquet (zstd), their origin in the file's metadata: it is the same for every row, so it is stored once."""
    import pyarrow.parquet as pq

    table = rows.to_arrow()
    about = {"shard": digest, "generation": origin.generation, "model": origin.model}
    metadata = (table.schema.metadata or {}) | {b"refeed": json.dumps(about).encode()}
    table, size = table.replace_schema_metadata(metadata), group_size(rows.num_rows, rows.nbytes)
    pq.write_table(table, path, compression="zstd", row_group_size=size, write_page_checksum=True)


def group_size(num_rows: int, num_bytes: int) -> int:
    """Rows to a row group, so that one holds about a MiB: one row is then read without reading its shard whole."""
    return max(1, min(65536, GROUP_BYTES * max(num_rows, 1) // max(num_bytes, 1)))


def read_rows(path: Path, *, maps: Path | None = None) -> Rows:
    import pyarrow.parquet as pq

    if maps is not None and is_large(path):
        status = path.stat()  # a trimmed shard is another file
        return mapped(path, maps / f"{path.parent.name}-{path.stem}-{status.st_size:x}-{status.st_mtime_ns:x}")
    table: pa.Table = pq.read_table(path)
    return Rows.from_arrow(table)


def write_selection(pool: Pool, path: Path) -> None:
    """The positions of the chosen rows, where a training set does not take whole shards."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    chosen = [(number, part.index) for number, part in enumerate(pool) if part.index is not None]
    if not chosen:
        return
    parts = np.concatenate([np.full(len(index), number, dtype=np.int32) for number, index in chosen])
    table = pa.table({"part": parts, "row": np.concatenate([index for _, index in chosen])})
    pq.write_table(table, path, compression="zstd")

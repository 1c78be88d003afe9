"""Numbers and outcomes: small records, many to a file, in files named by the checksum of their content."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from refeed.core.errors import Damaged
from refeed.workspace.files import write_bytes


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of a step without its artefact: the numbers it measured, or the outcome that stopped it."""

    digest: str
    kind: str
    seconds: float
    values: dict[str, float] | None = None
    outcome: str | None = None
    sentence: str | None = None


def write_records(folder: Path, records: Iterable[Record]) -> Path:
    """Write records as one Parquet file; its name is the SHA-256 of its bytes, so a damaged one gives itself away."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {
            "digest": r.digest,
            "kind": r.kind,
            "seconds": r.seconds,
            "names": None if r.values is None else list(r.values),
            "values": None if r.values is None else list(r.values.values()),
            "outcome": r.outcome,
            "sentence": r.sentence,
        }
        for r in records
    ]
    schema = pa.schema(
        {
            "digest": pa.string(),
            "kind": pa.string(),
            "seconds": pa.float64(),
            "names": pa.list_(pa.string()),
            "values": pa.list_(pa.float64()),
            "outcome": pa.string(),
            "sentence": pa.string(),
        }
    )
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer, compression="zstd")
    content = buffer.getvalue()
    path = folder / f"{hashlib.sha256(content).hexdigest()}.parquet"
    write_bytes(path, content)
    return path


def read_records(path: Path) -> list[Record]:
    """The records of one file, checked against its name."""
    import pyarrow.parquet as pq

    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != path.stem:
        raise Damaged(f"{path} does not match its checksum")
    with pq.ParquetFile(io.BytesIO(content)) as file:  # no thread is begun: one that begins while a short command ends aborts it
        table = file.read(use_threads=False)
    return [
        Record(
            digest=row["digest"],
            kind=row["kind"],
            seconds=row["seconds"],
            values=None if row["names"] is None else dict(zip(row["names"], row["values"], strict=True)),
            outcome=row["outcome"],
            sentence=row["sentence"],
        )
        for row in table.to_pylist()
    ]

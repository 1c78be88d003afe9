"""Reading the rows of kept shards without loading a shard whole: one row, or batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from refeed.core.errors import Damaged, UserError
from refeed.core.rows import Rows
from refeed.core.steps import POSITION

if TYPE_CHECKING:
    import pyarrow as pa


def shard_file(folder: Path, kind: str) -> Path:
    """The Parquet file that holds the rows of a shard, in the folder of the step that made it."""
    return folder / ("train.parquet" if kind == "draw" else "rows.parquet")


def read_row(path: Path, row: int) -> Rows:
    """One row of a shard, by its position: only the row group that holds it is read, and checked by its own checksums."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        if POSITION in file.schema_arrow.names:  # trimmed: only some rows are left, with their positions
            positions = file.read(columns=[POSITION])[POSITION].to_numpy()
            found = int(np.searchsorted(positions, row))
            if found == len(positions) or positions[found] != row:
                raise UserError(
                    f"row {row} is not stored any more: no later generation needs it.", "Run its study again to see it."
                )
            row = found
        if not 0 <= row < file.metadata.num_rows:
            raise UserError(f"there is no row {row} among the {file.metadata.num_rows} rows, which count from 0.")
        first = 0
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if row < first + size:
                try:
                    return Rows.from_arrow(file.read_row_group(group).slice(row - first, 1))
                except OSError as error:
                    raise Damaged(f"{path}, row {row}: {error}") from None
            first += size
    raise AssertionError("row groups hold every row")


def tables(path: Path) -> Iterator[pa.Table]:
    """The rows of a shard, one row group after the other."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)

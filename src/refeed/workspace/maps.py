"""Large shards as memory maps: their Parquet file is unpacked once, row group by row group, and read from disk ever after.

So the rows of ten generations cost no more memory than those of one. What is unpacked can be thrown away at any time.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from refeed.core import cache
from refeed.core.rows import Column, Ragged, Rows
from refeed.workspace.shards import tables

LARGE = 2**26  # bytes of a shard, unpacked


def is_large(path: Path) -> bool:
    """Whether a Parquet file is large enough to be mapped."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        groups = (file.metadata.row_group(number) for number in range(file.num_row_groups))
        return sum(group.total_byte_size for group in groups) >= LARGE


def mapped(path: Path, place: Path) -> Rows:
    """The rows of a Parquet file, every column a map of a file in `place`."""
    about = cache.built(place, lambda folder: _unpack(path, folder))
    for other in place.parent.glob(f"{place.name.rsplit('-', 2)[0]}-*"):
        if other != place:  # of the shard before it was trimmed
            shutil.rmtree(other, ignore_errors=True)
    columns: dict[str, Column] = {}
    for name, column in about.items():
        values = _map(place / f"{column['file']}.values", column["dtype"], column["shape"])
        if column["ragged"]:
            columns[name] = Ragged(values, _map(place / f"{column['file']}.offsets", "int64", []))
        else:
            columns[name] = values
    return Rows(**columns)


def _unpack(path: Path, folder: Path) -> dict[str, Any]:
    about: dict[str, Any] = {}
    ends: dict[str, int] = {}
    for table in tables(path):
        rows = Rows.from_arrow(table)
        for number, name in enumerate(rows.names):
            column = rows[name]
            values = column.values if isinstance(column, Ragged) else column
            if name not in about:
                shape = list(values.shape[1:])
                about[name] = {"file": number, "dtype": values.dtype.str, "shape": shape, "ragged": isinstance(column, Ragged)}
            with (folder / f"{number}.values").open("ab") as file:
                np.ascontiguousarray(values).tofile(file)
            if isinstance(column, Ragged):
                first = name not in ends
                end = ends.get(name, 0)
                with (folder / f"{number}.offsets").open("ab") as file:
                    (column.offsets[0 if first else 1 :] + end).tofile(file)
                ends[name] = end + int(column.offsets[-1])
    return about


def _map(path: Path, dtype: str, shape: list[int]) -> np.ndarray:
    if not path.stat().st_size:
        return np.zeros((0, *shape), dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r").reshape(-1, *shape)

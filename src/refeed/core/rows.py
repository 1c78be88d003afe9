"""Rows in memory: named columns of NumPy arrays, one entry a row, that go to Arrow and back without a copy.

A column is an array whose first axis is the row, or a `Ragged` (one array of any length a row: the tokens of a story, the atoms of
a molecule).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, eq=False)
class Ragged:
    """Arrays of different lengths laid end to end: row i is `values[offsets[i]:offsets[i + 1]]`."""

    values: np.ndarray
    offsets: np.ndarray  # int64, one more than rows

    @classmethod
    def of(cls, arrays: Sequence[Any], dtype: Any) -> Ragged:
        offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
        np.cumsum([len(array) for array in arrays], out=offsets[1:])
        values = np.concatenate([np.asarray(a, dtype=dtype) for a in arrays]) if arrays else np.zeros(0, dtype=dtype)
        return cls(values, offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.offsets.nbytes

    def take(self, index: np.ndarray) -> Ragged:
        starts, lengths = self.offsets[:-1][index], self.lengths[index]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        source = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Ragged(self.values[source], offsets)


Column = np.ndarray | Ragged


class Rows:
    """Rows born or chosen together: named columns, all of one length.

    >>> rows = Rows(x=np.zeros((4, 2)), y=np.arange(4.0))
    >>> len(rows), rows.take(np.array([0, 3]))["y"].tolist()
    (4, [0.0, 3.0])
    """

    __slots__ = ("_columns", "num_rows")

    def __init__(self, **columns: Column) -> None:
        self._columns = columns
        self.num_rows = len(next(iter(columns.values()))) if columns else 0
        for name, column in columns.items():
            for array in (column.values, column.offsets) if isinstance(column, Ragged) else (column,):
                array.flags.writeable = False  # rows are immutable: whoever needs others makes new ones
            if len(column) != self.num_rows:
                raise ValueError(f"column {name!r} has {len(column)} rows where others have {self.num_rows}")

    def __getitem__(self, name: str) -> Any:
        return self._columns[name]

    def __len__(self) -> int:
        return self.num_rows

    def with_columns(self, **columns: Column) -> Rows:
        """The same rows with further or other columns."""
        return Rows(**(self._columns | columns))

    def without(self, *names: str) -> Rows:
        """The same rows without the columns `names`."""
        return Rows(**{name: column for name, column in self._columns.items() if name not in names})

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._columns)

    @property
    def nbytes(self) -> int:
        return sum(column.nbytes for column in self._columns.values())

    @property
    def resident_bytes(self) -> int:
        """The bytes that lie in memory: those of maps of files lie on disk."""
        columns = self._columns.values()
        arrays = [a for c in columns for a in ((c.values, c.offsets) if isinstance(c, Ragged) else (c,))]
        return sum(array.nbytes for array in arrays if not isinstance(array, np.memmap))

    def take(self, index: np.ndarray) -> Rows:
        """The rows at `index`, in that order."""
        return Rows(**{n: c.take(index) if isinstance(c, Ragged) else c[index] for n, c in self._columns.items()})

    def num_non_finite(self, *ignored: str) -> int:
        """How many rows hold a NaN or an infinite value in any float column but those `ignored`."""
        bad = np.zeros(self.num_rows, dtype=bool)
        for name, column in self._columns.items():
            values = column.values if isinstance(column, Ragged) else column
            if name in ignored or values.dtype.kind != "f" or np.isfinite(values).all():
                continue
            if isinstance(column, Ragged):
                bad[np.repeat(np.arange(len(column)), column.lengths)[~np.isfinite(values)]] = True
            else:
                bad |= ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
        return int(bad.sum())

    @staticmethod
    def concatenate(pieces: Sequence[Rows]) -> Rows:
        """One after the other, with the columns that all pieces have."""
        if len(pieces) == 1:
            return pieces[0]
        columns: dict[str, Column] = {}
        for name, first in pieces[0]._columns.items():
            if not all(name in piece._columns for piece in pieces):
                continue
            parts = [piece[name] for piece in pieces]
            if isinstance(first, Ragged):
                lengths = np.concatenate([part.lengths for part in parts])
                offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
                columns[name] = Ragged(np.concatenate([part.values for part in parts]), offsets)
            else:
                columns[name] = np.concatenate(parts)
        return Rows(**columns)

    def to_arrow(self) -> pa.Table:
        """An Arrow table: scalars as they are, tensors as fixed-size lists (shape in the field's metadata), ragged as lists."""
        import pyarrow as pa

        fields, arrays = [], []
        for name, column in self._columns.items():
            if isinstance(column, Ragged):
                values = _values_to_arrow(column.values)
                array: pa.Array = (
                    pa.ListArray.from_arrays(column.offsets.astype(np.int32), values)
                    if column.offsets[-1] < 2**31
                    else pa.LargeListArray.from_arrays(column.offsets, values)
                )
                metadata = {"ragged": _shape(column.values)}
            elif column.ndim == 1:
                array, metadata = pa.array(column), {}
            else:
                array, metadata = _values_to_arrow(column), {"shape": _shape(column)}
            fields.append(pa.field(name, array.type, metadata=metadata))
            arrays.append(array)
        return pa.Table.from_arrays(arrays, schema=pa.schema(fields))

    @classmethod
    def from_arrow(cls, table: pa.Table) -> Rows:
        """The inverse of `to_arrow`."""
        columns: dict[str, Column] = {}
        for field in table.schema:
            metadata = field.metadata or {}
            chunked = table.column(field.name)
            array = chunked.combine_chunks() if chunked.num_chunks != 1 else chunked.chunk(0)
            if b"ragged" in metadata:
                offsets = array.offsets.to_numpy().astype(np.int64)
                values = _values_from_arrow(array.values, metadata[b"ragged"])[offsets[0] : offsets[-1]]
                columns[field.name] = Ragged(values, offsets - offsets[0])
            elif b"shape" in metadata:
                columns[field.name] = _values_from_arrow(array, metadata[b"shape"])
            else:
                columns[field.name] = array.to_numpy(zero_copy_only=False)
        return cls(**columns)


def _shape(values: np.ndarray) -> str:
    return ",".join(map(str, values.shape[1:]))


def _values_to_arrow(values: np.ndarray) -> pa.Array:
    import pyarrow as pa

    if values.ndim == 1:
        return pa.array(values)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, int(np.prod(values.shape[1:])))


def _values_from_arrow(array: pa.Array, shape: bytes) -> np.ndarray:
    if not shape:
        return array.to_numpy(zero_copy_only=False)
    return array.flatten().to_numpy().reshape(-1, *(int(n) for n in shape.split(b",")))

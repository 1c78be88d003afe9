"""A fit as it is sent to other processes of this machine, and as they send it back: a folder of a pickle and, apart, its arrays.

Processes map the arrays, so that a training set or a network is in memory once however many there are.
"""

from __future__ import annotations

import json
import mmap
import os
import pickle
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

ALIGNMENT = 64  # bytes, of each array in the file


class _Pickler(pickle.Pickler):
    """Tensors go as arrays, and arrays that are maps of files by the file's name."""

    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, torch.Tensor) and thing.device.type == "cpu":
            make = _parameter if isinstance(thing, torch.nn.Parameter) else torch.from_numpy
            return make, (thing.detach().contiguous().numpy(),)
        if isinstance(thing, np.memmap):
            path = thing.filename
            if path is not None and thing.flags.c_contiguous and thing.nbytes == os.path.getsize(path):
                return _map, (str(path), thing.dtype.str, thing.shape)
            return np.asarray(thing).__reduce_ex__(5)
        return NotImplemented


def _parameter(array: np.ndarray) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.from_numpy(array))


def _map(path: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.memmap(path, dtype=dtype, mode="r", shape=shape)


def dump(thing: Any, folder: Path) -> None:
    """Write `thing` into a new folder, its arrays apart from the rest; it appears whole or not at all."""
    working = folder.with_suffix(".writing")
    shutil.rmtree(working, ignore_errors=True)
    working.mkdir()
    places: list[tuple[int, int]] = []
    with (working / "arrays").open("wb") as arrays, (working / "pickle").open("wb") as rest:

        def apart(buffer: pickle.PickleBuffer) -> None:
            _pad(arrays)
            raw = buffer.raw()
            places.append((arrays.tell(), raw.nbytes))
            arrays.write(raw)

        _Pickler(rest, protocol=5, buffer_callback=apart).dump(thing)
        arrays.write(b"\0")  # an empty file cannot be mapped
    (working / "places").write_text(json.dumps(places))
    working.rename(folder)


def load(folder: Path) -> Any:
    """What `dump` wrote; arrays are mapped, and what is written to them stays in this process."""
    with (folder / "arrays").open("rb") as file:
        arrays = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    places = json.loads((folder / "places").read_text())
    return pickle.loads((folder / "pickle").read_bytes(), buffers=[arrays[first : first + size] for first, size in places])


def _pad(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % ALIGNMENT))

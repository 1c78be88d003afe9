"""Writing files so that a kill, a full disk or a flipped bit is never mistaken for a result."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from refeed.core.errors import Damaged, NotAWorkspace, WorkspaceError

MANIFEST = "manifest.json"
OPENING = "opening the workspace"
FULL = {errno.ENOSPC, errno.EDQUOT}
READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
NO_FOLDER = {errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG}


@contextmanager
def plain_errors(doing: str, root: Path) -> Iterator[None]:
    """Turn a full disk or a read-only folder into one clear message."""
    try:
        yield
    except Exception as error:
        code = _system_error(error)
        if code in FULL:
            free = shutil.disk_usage(root).free // 2**20
            raise WorkspaceError(
                f"no space left while {doing}: {free} MiB are free in {root}.",
                hint="Nothing is lost and nothing half-written remains in use. Free some space, then run the same command again.",
            ) from error
        if code in READ_ONLY:
            raise WorkspaceError(
                f"cannot write to {root} while {doing}: {os.strerror(code)}.",
                hint="Choose a folder you may write to with --workspace FOLDER.",
            ) from error
        if code in NO_FOLDER and doing == OPENING:
            raise NotAWorkspace(
                f"{root} cannot be a folder: {os.strerror(code)}.", "Choose one with --workspace FOLDER."
            ) from error
        raise


def _system_error(error: Exception) -> int:
    """The system's error number; libraries that write files themselves may hold it in their message alone."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = re.search(r"(?:os error|Errno) (\d+)", str(error))
    return int(found[1]) if found else 0


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Write `path` in one go: a temporary name beside it, fsync, rename."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Flush every file of `folder` and write its manifest, which names their sizes and checksums, last."""
    outputs = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            with path.open("rb") as file:
                os.fsync(file.fileno())
            outputs[str(path.relative_to(folder))] = {"sha256": sha256(path), "bytes": path.stat().st_size}
    manifest = manifest | {"outputs": outputs}
    write_bytes(folder / MANIFEST, json.dumps(manifest | {"self": _checksum(manifest)}, indent=1).encode())


def _checksum(manifest: dict[str, Any]) -> str:
    content = {key: value for key, value in manifest.items() if key != "self"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a sealed folder, after checking every file against it; `Damaged` names the first that does not match."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        intact = manifest["self"] == _checksum(manifest)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Damaged(f"{folder / MANIFEST} is not readable") from None
    if not intact:
        raise Damaged(f"{folder / MANIFEST} does not match its own checksum")
    for name, expected in manifest["outputs"].items():
        path = folder / name
        if not path.is_file():
            raise Damaged(f"{path} is missing")
        if path.stat().st_size != expected["bytes"]:
            raise Damaged(f"{path} has {path.stat().st_size} bytes instead of {expected['bytes']}")
        if sha256(path) != expected["sha256"]:
            raise Damaged(f"{path} does not match its checksum")
    return dict(manifest)


def publish(temporary: Path, final: Path) -> None:
    """Rename a sealed folder to its final name; if another process was first, its equal copy stays."""
    try:
        os.rename(temporary, final)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        if (final / MANIFEST).exists():
            shutil.rmtree(temporary)
        else:  # what lies there was never finished, or lost its manifest
            os.rename(final, final.parent.parent / "damaged" / f"{final.name}-{uuid.uuid4().hex[:6]}")
            os.rename(temporary, final)
    descriptor = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

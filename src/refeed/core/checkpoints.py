"""What a long step keeps on disk while it runs, so that a killed one goes on from there. Nothing where no store offers a folder.

A step that uses this must end with the same bits whether it was interrupted or not.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

SECONDS = 120.0  # between two states; how often changes no result

_folder: ContextVar[Path | None] = ContextVar("refeed.checkpoints", default=None)
log = logging.getLogger("refeed")


@contextmanager
def kept_in(folder: Path) -> Iterator[None]:
    """Inside the block, the running step may keep its state in `folder`, which it makes when it does."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def folder() -> Path | None:
    """Where the running step may keep its state; the folder need not exist."""
    return _folder.get()


class Checkpoints:
    """The last state of the running step: a file or a folder, written whole or not at all, its SHA-256 in its name.

    Where several processes do one step, all call `keep`, and one of them (`seals`) gives what they wrote its name.
    """

    def __init__(self, *, seals: bool = True) -> None:
        self._folder = _folder.get()
        self._seals = seals
        self._last = time.monotonic()

    def newest(self) -> Path | None:
        """The state to go on from, if there is an intact one."""
        found = sorted(self._folder.glob("*.state")) if self._folder is not None and self._folder.is_dir() else []
        for path in reversed(found):
            if path.stem.partition("-")[2] == _sha256(path):
                return path
            log.warning("%s does not match its checksum; it is not used.", path)
        return None

    @property
    def due(self) -> bool:
        """Whether there is a place for a state, and the last one is old enough."""
        return self._folder is not None and time.monotonic() - self._last >= SECONDS

    def keep(self, number: int, write: Callable[[Path], None]) -> None:
        """Keep what `write(path)` writes as state `number`, in place of those before."""
        assert self._folder is not None
        working = self._folder / f"{number:012d}.writing"
        if not self._seals:
            write(working)
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        before = [*self._folder.glob("*.state"), *self._folder.glob("*.writing")]
        _remove(working)
        write(working)
        for path in _files(working):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        working.rename(self._folder / f"{number:012d}-{_sha256(working)}.state")
        for path in before:
            _remove(path)
        self._last = time.monotonic()


def _files(path: Path) -> list[Path]:
    """The files of a state: itself, or those in its folder."""
    return sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    if path.is_dir():
        return hashlib.sha256("".join(f"{file.name} {_sha256(file)}\n" for file in _files(path)).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

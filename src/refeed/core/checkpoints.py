"""What a long step keeps on disk while it runs, so that a killed one goes on from there. Nothing where no store offers a folder.

A step that uses this must end with the same bits whether it was interrupted or not.
"""

from __future__ import annotations

import hashlib
import logging
import os
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


class Checkpoints:
    """The last state of the running step: one file, written whole or not at all, its SHA-256 in its name."""

    def __init__(self) -> None:
        self._folder = _folder.get()
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
        self._folder.mkdir(parents=True, exist_ok=True)
        before = list(self._folder.iterdir())
        working = self._folder / f"{number:012d}.writing"
        write(working)
        with working.open("rb") as file:
            os.fsync(file.fileno())
        working.rename(self._folder / f"{number:012d}-{_sha256(working)}.state")
        for path in before:
            path.unlink(missing_ok=True)
        self._last = time.monotonic()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

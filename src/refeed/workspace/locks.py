"""Locks on steps that vanish with the process that holds them."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from refeed.core.errors import WorkspaceError

_descriptors: dict[tuple[int, str], int] = {}


class StepLocks:
    """One byte of one file a step, locked by the kernel (POSIX record locks).

    A killed process leaves nothing behind, there is one file however many steps there are, and no clock is read. Between processes
    only: two threads of one process do not exclude each other. On a network file system it holds where that one honours record
    locks (NFSv4 does).
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def _open(self) -> int:
        # One descriptor a file and process: closing any other one would free the locks. Record locks are not inherited by a fork.
        key = (os.getpid(), str(self._path.absolute()))
        if key not in _descriptors:
            _descriptors[key] = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        return _descriptors[key]

    def close(self) -> None:
        """Close the file; nobody in this process may be using it."""
        descriptor = _descriptors.pop((os.getpid(), str(self._path.absolute())), None)
        if descriptor is not None:
            os.close(descriptor)

    @contextmanager
    def hold(self, digest: str, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold the lock of `digest`, waiting for another process that has it; `on_wait` is called once before waiting."""
        descriptor, offset = self._open(), int(digest[:15], 16)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            if on_wait is not None:
                on_wait()
            fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, offset)
        try:
            yield
        finally:
            fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, offset)

    def is_free(self, digest: str) -> bool:
        """Whether no other process holds the lock of `digest` now."""
        try:
            fcntl.lockf(self._open(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(digest[:15], 16))
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            return False
        fcntl.lockf(self._open(), fcntl.LOCK_UN, 1, int(digest[:15], 16))
        return True

    @contextmanager
    def hold_all(self) -> Iterator[None]:
        """Hold every lock at once; refused while another process holds any. This process must hold none itself."""
        descriptor = self._open()
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            raise WorkspaceError(
                f"another process is at work in {self._path.parent}.",
                hint="Wait until it has ended, then type the same command again.",
            ) from None
        try:
            yield
        finally:
            fcntl.lockf(descriptor, fcntl.LOCK_UN)

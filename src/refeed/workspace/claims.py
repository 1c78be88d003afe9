"""Claims on steps in an object store, which has no locks: objects that are created once, and a number that is counted up."""

from __future__ import annotations

import json
import logging
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from refeed.core.errors import WorkspaceError
from refeed.workspace.objects import ObjectStore

BEAT, PATIENCE, LOOK = 20.0, 300.0, 1.0  # seconds: between two counts, until a silent claim is taken over, between two looks

log = logging.getLogger("refeed")


class Claims:
    """Who does which step: `claims/<digest>/<term>`, created by whoever gets it, holding a number that it counts up.

    A claim whose number has not changed for `PATIENCE` seconds, by the clock of whoever waits, is taken over by creating the next
    term, which one of all that wait can do. Clocks of two machines are never compared. A process of this machine that is gone is
    not waited for. A holder that was silent for so long and comes back may do its step beside the new one; which of the two
    results counts is decided where they are published.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._held: dict[str, tuple[str, int]] = {}  # the object of each claim: its token, and the number it holds
        self._guard = threading.Lock()
        self._beating = False

    @contextmanager
    def hold(self, digest: str, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold the claim on `digest`, waiting for whoever has it; `on_wait` is called once before waiting."""
        name = self._acquire(digest, on_wait)
        try:
            yield
        finally:
            self._release(digest, name)

    def _acquire(self, digest: str, on_wait: Callable[[], None] | None) -> str:
        token = uuid.uuid4().hex
        watched: tuple[str, bytes] | None = None
        since, terms = 0.0, list[str]()  # at first as if nobody had it, which is mostly so
        while True:
            if terms:
                content = self._store.read(terms[-1])
                if content is None:  # given up just now
                    terms = self._terms(digest)
                    continue
                if watched != (terms[-1], content):
                    watched, since = (terms[-1], content), time.monotonic()
                if time.monotonic() - since < PATIENCE and not _is_gone(content):
                    if on_wait is not None:
                        on_wait()
                        on_wait = None
                    time.sleep(LOOK * random.uniform(0.5, 1.5))
                    terms = self._terms(digest)
                    continue
            else:
                watched = None
            name = f"claims/{digest}/{_term(terms[-1]) + 1 if terms else 1:06}"
            if self._store.create(name, _content(token, 0)):
                if self._is_alone(digest, name, watched):
                    with self._guard:
                        self._held[name] = token, 0
                        if not self._beating:
                            self._beating = True
                            threading.Thread(target=self._count, daemon=True).start()
                    return name
                self._store.remove([name])
                time.sleep(LOOK * random.uniform(0.0, 0.5))
            terms = self._terms(digest)

    def _is_alone(self, digest: str, name: str, watched: tuple[str, bytes] | None) -> bool:
        """Whether no other claim was made meanwhile, and the one that is taken over did not stir."""
        others = [term for term in self._terms(digest) if term != name]
        if watched is None:
            return not others
        return max(others, default="") <= watched[0] and self._store.read(watched[0]) in (None, watched[1])

    def _release(self, digest: str, name: str) -> None:
        with self._guard:
            token, _ = self._held.pop(name)
        try:
            if _token(self._store.read(name)) == token:  # else it was taken over, and is another's
                if _term(name) > 1:
                    self._store.remove([term for term in self._terms(digest) if term < name])
                self._store.remove([name])
        except WorkspaceError as error:
            log.warning("a claim stays until others have waited long enough: %s", error.message)

    def _count(self) -> None:
        while True:
            time.sleep(BEAT)
            with self._guard:
                for name, (token, number) in self._held.items():
                    self._held[name] = token, number + 1
                held = dict(self._held)
            for name, (token, number) in held.items():
                with self._guard:
                    if name not in self._held:
                        continue
                    try:
                        if _token(self._store.read(name)) == token:  # else it was taken over while we were silent
                            self._store.write(name, _content(token, number))
                    except WorkspaceError as error:
                        log.warning("%s", error.message)

    def _terms(self, digest: str) -> list[str]:
        return [name for name in self._store.names(f"claims/{digest}") if name.rpartition("/")[2].isdigit()]


def _term(name: str) -> int:
    return int(name.rpartition("/")[2])


def _content(token: str, number: int) -> bytes:
    return json.dumps({"token": token, "number": number, "machine": _machine(), "process": os.getpid()}).encode()


def _token(content: bytes | None) -> str | None:
    try:
        return str(json.loads(content or b"")["token"])
    except (ValueError, KeyError, TypeError):
        return None


def _is_gone(content: bytes) -> bool:
    """Whether the holder was a process of this machine, as it has run since it was started, that is no more."""
    try:
        about = json.loads(content)
        if about["machine"] != _machine() or not about["machine"]:
            return False
        os.kill(int(about["process"]), 0)
    except ProcessLookupError:
        return True
    except (ValueError, KeyError, TypeError, OSError):
        return False
    return False


def _machine() -> str:
    """This machine since its start, and this container on it, whose process numbers mean something to us; empty if unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""

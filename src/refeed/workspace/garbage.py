"""Which kept steps nobody needs any more, and freeing them.

Every run notes, before its first step, which steps its study is made of (`needs/<study digest>.json`); when it ends it notes that.
A step is needed by a study whose results lie in `studies/`, by a run that has not ended, and by one from Python that left no
results there. What is left belongs to studies that were changed and run again, or to none.

Nothing is taken from under a running process: freeing holds every lock of the workspace at once, so it is refused while any step
is being made, and no run can begin before it ends; the steps of a run that is between two steps are in its note.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refeed.core.errors import UserError
from refeed.workspace.files import MANIFEST, write_bytes
from refeed.workspace.workspace import Workspace, alive, is_leftover

REGISTER = b"register".hex().ljust(32, "0")


@dataclass(frozen=True, kw_only=True)
class Item:
    """Something that can be freed: a step, the state of an interrupted one, a leftover or a damaged artefact."""

    path: Path
    kind: str  # draw, fit, sample, ...; "interrupted", "map", "leftover" or "damaged"
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What is needed, by whom, and what is not."""

    free: tuple[Item, ...]
    num_kept: int
    bytes_kept: int
    studies: tuple[str, ...]  # with results in the workspace
    unrecorded: dict[str, int] = field(default_factory=dict)  # runs without results, and how many steps only they need

    @property
    def bytes_free(self) -> int:
        return sum(item.bytes for item in self.free)


def note_needs(store: Workspace, *, study: str, digest: str, steps: Iterable[str], done: bool) -> None:
    """Write down which steps a run needs, or (`done`) that it has ended."""
    about = {"study": study, "digest": digest, "done": done, "host": socket.gethostname(), "process": os.getpid()}
    content = json.dumps(about | {"noted": time.time(), "steps": sorted(set(steps))}).encode()
    with store.locks.hold(REGISTER):
        write_bytes(store.path / "needs" / f"{digest}.json", content)


def find(store: Workspace, *, unrecorded: bool = False) -> Findings:
    """What could be freed; with `unrecorded`, also what only ended or killed runs without results need."""
    notes = _notes(store.path)
    results = _results(store.path)
    if unknown := [name for name, digest in results.items() if digest not in notes]:
        raise UserError(
            f"it is not noted which steps {' and '.join(map(repr, unknown))} in {store.path} needs.",
            hint=f"Run it again (whatever is done is reused), or remove {store.path / 'studies' / unknown[0]}.",
        )
    recorded = {step for digest in results.values() for step in notes[digest]["steps"]}
    others: dict[str, set[str]] = {}
    for digest, note in notes.items():
        superseded = note["done"] and note["study"] in results
        if digest not in results.values() and not superseded and not (unrecorded and not _running(note)):
            others.setdefault(note["study"], set()).update(note["steps"])
    needed = recorded.union(*others.values())
    kept: list[Item] = []
    free: list[Item] = []
    for folder in sorted((store.path / "steps").iterdir()):
        (kept if folder.name in needed else free).append(Item(path=folder, kind=_kind(folder), bytes=_size(folder)))
    present = {item.path.name for item in kept}
    leftovers = [path for path in (store.path / "tmp").iterdir() if is_leftover(path)]
    partial = [(path, path.name.partition(".")[0]) for path in sorted((store.path / "partial").iterdir())]
    states = [path for path, step in partial if step in present or step not in needed]
    free += [Item(path=path, kind="interrupted", bytes=_size(path)) for path in states]
    maps = [path for path in sorted((store.path / "maps").iterdir()) if path.name.partition("-")[0] not in present]
    free += [Item(path=path, kind="map", bytes=_size(path)) for path in maps]
    free += [Item(path=path, kind="leftover", bytes=_size(path)) for path in leftovers]
    free += [Item(path=path, kind="damaged", bytes=_size(path)) for path in sorted((store.path / "damaged").iterdir())]
    return Findings(
        free=tuple(free),
        num_kept=len(kept),
        bytes_kept=sum(item.bytes for item in kept),
        studies=tuple(results),
        unrecorded={name: len((steps - recorded) & present) for name, steps in others.items()},
    )


def collect(store: Workspace, *, unrecorded: bool = False) -> Findings:
    """Free what `find` finds, and say what it was. Killed half-way, it leaves only leftovers in tmp/, never half a step."""
    with store.locks.hold_all():
        found = find(store, unrecorded=unrecorded)
        trash = store.path / "tmp" / f"{socket.gethostname()}+{os.getpid()}+{uuid.uuid4().hex[:12]}"
        trash.mkdir(parents=True)
        for number, item in enumerate(found.free):
            os.rename(item.path, trash / str(number))
        gone = {item.path.name for item in found.free}
        for digest, note in _notes(store.path).items():
            if gone & set(note["steps"]) and not _running(note):
                (store.path / "needs" / f"{digest}.json").unlink(missing_ok=True)
    shutil.rmtree(trash)
    return found


def _notes(workspace: Path) -> dict[str, dict[str, Any]]:
    notes = {}
    for path in (workspace / "needs").glob("*.json"):
        try:
            note = json.loads(path.read_bytes())
            notes[path.stem] = {name: note[name] for name in ("study", "done", "host", "process", "steps")}
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f"{path} is damaged, so it is not known which steps it names.",
                hint="Run its study again, or remove the file if nobody needs it.",
            ) from None
    return notes


def _results(workspace: Path) -> dict[str, str]:
    """The digests of the studies whose results lie in the workspace, by folder."""
    found = {}
    for path in sorted((workspace / "studies").glob("*/study.json")):
        try:
            found[path.parent.name] = str(json.loads(path.read_bytes())["digest"])
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path} is damaged.", hint=f"Run the study again, or remove {path.parent}.") from None
    return found


def _running(note: dict[str, Any]) -> bool:
    """Whether the run may be going on: its process lives, or it is on a machine that cannot be asked."""
    if note["done"]:
        return False
    if note["host"] != socket.gethostname():
        return True
    return int(note["process"]) != os.getpid() and alive(note["process"])


def _kind(folder: Path) -> str:
    try:
        return str(json.loads((folder / MANIFEST).read_bytes())["kind"])
    except (OSError, ValueError, KeyError, TypeError):
        return "unfinished"


def _size(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())

"""The workspace: a folder that is a memo of steps. Whatever was done once is never done again."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
import uuid
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from refeed.core.checkpoints import kept_in
from refeed.core.devices import granted
from refeed.core.errors import Damaged, NotAWorkspace, Stopped
from refeed.core.memory import Memory
from refeed.core.rows import Rows
from refeed.core.steps import POSITION, Alter, Draw, Fit, Measure, Part, Reduce, Sample, Step
from refeed.workspace import artefacts
from refeed.workspace.audit import audit
from refeed.workspace.files import MANIFEST, OPENING, plain_errors, publish, seal, verify, write_bytes
from refeed.workspace.locks import StepLocks
from refeed.workspace.records import Record, read_records, write_records
from refeed.workspace.shards import shard_file

FORMAT = 1
MAX_RECORD_FILES = 64
FOLDERS = ("steps", "records", "studies", "needs", "partial", "maps", "damaged", "tmp")


class DamagedWarning(UserWarning):
    """A stored file did not match its checksum; it was set aside and is made again."""


class Workspace:
    """A folder of steps. `realise(step)` reads what is there and makes what is not.

        refeed.json                 the format version
        steps/<digest>/             a world, a model or rows, with manifest.json (written last) naming every file's checksum
        records/<sha256>.parquet    numbers and outcomes, many to a file
        studies/<name>/             results and reports of studies
        needs/<digest>.json         which steps a study needs, so that the others can be freed
        partial/<digest>/           the state of a long step that runs or was interrupted, to go on from
        partial/<digest>.<part>/    a part of a sample, until the whole is there
        maps/<digest>-.../          large shards unpacked, to be read without loading them; made again when they are gone
        damaged/                    what failed its checksum, for inspection
        tmp/                        being written; never read
        lock                        one byte a step

    Safe to kill at any moment, and to use from several processes at once.
    """

    trims: ClassVar[bool] = True  # whether rows that are not needed any more can be freed

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with plain_errors(OPENING, self.path):
            self._open()
        self.memory = Memory(max_bytes=512 * 2**20, backed=True)
        self.locks = StepLocks(self.path / "lock")
        self.records: dict[str, Record] = {}
        self._record_files: set[str] = set()
        self._verified: set[str] = set()
        self.refresh()

    def _open(self) -> None:
        marker = self.path / "refeed.json"
        if self.path.is_file():
            raise NotAWorkspace(f"{self.path} is a file, not a folder.", "Choose a folder with --workspace FOLDER.")
        new = not marker.exists()
        if new:
            present = {entry.name for entry in self.path.iterdir()} if self.path.exists() else set()
            if any(name not in FOLDERS and not name.startswith(".refeed.json") for name in present):
                raise NotAWorkspace(
                    f"{self.path} holds files but is not a refeed workspace (there is no refeed.json).",
                    "Choose an empty or new folder with --workspace FOLDER.",
                )
        for name in FOLDERS:
            if not (self.path / name).exists():
                (self.path / name).mkdir(parents=True, exist_ok=True)
        if new:
            write_bytes(marker, json.dumps({"format": FORMAT}).encode())
        try:
            found = json.loads(marker.read_bytes())["format"]
        except (ValueError, KeyError, TypeError):
            raise NotAWorkspace(f'{marker} is damaged: it should hold {{"format": {FORMAT}}}.') from None
        if found != FORMAT:
            raise NotAWorkspace(
                f"{self.path} was written in format {found}; this version of refeed reads format {FORMAT}.",
                "Use the version that wrote it, or choose another folder with --workspace FOLDER.",
            )

    @property
    def address(self) -> str:
        """What another process opens this workspace by."""
        return str(self.path.absolute())

    # What is known -------------------------------------------------------------------------------------------------------------

    def has(self, step: Step) -> bool:
        """Whether `step` is done (or stopped with an outcome) and would not be run again. Looks, does not verify."""
        if step.digest in self.records or (isinstance(step, Part) and self.has(step.whole)):
            return True
        return not isinstance(step, Measure | Reduce) and (self.folder(step) / MANIFEST).exists()

    def outcome(self, step: Step) -> str | None:
        """The name of the outcome that stopped `step`, if one did."""
        record = self.records.get(step.digest)
        return None if record is None else record.outcome

    def folder(self, step: Step) -> Path:
        if isinstance(step, Part):
            return self.path / "partial" / f"{step.whole.digest}.{step.digest}"
        return self.path / "steps" / step.digest

    def seconds(self, step: Step) -> float | None:
        """How long `step` took, its parts included; None where it is not kept."""
        if step.digest in self.records:
            return self.records[step.digest].seconds
        return (self.manifest(step) or {}).get("seconds")

    def manifest(self, step: Step) -> dict[str, Any] | None:
        """What is written down about `step`; None where it is not kept."""
        try:
            found = json.loads((self.folder(step) / MANIFEST).read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def bring(self, steps: Iterable[Step]) -> None:
        """Have the files of those of `steps` that are done in their folders: here they always are."""

    def devices(self, step: Step) -> int:
        """Over how many devices `step` was spread; 1 where it is not kept."""
        try:
            return int(json.loads((self.folder(step) / MANIFEST).read_bytes()).get("devices", 1))
        except (OSError, ValueError):
            return 1

    def refresh(self) -> None:
        """Read the records that other processes have written since."""
        for path in (self.path / "records").glob("*.parquet"):
            if path.name in self._record_files:
                continue
            try:
                records = read_records(path)
            except FileNotFoundError:  # merged by another process; its records are in a newer file
                continue
            except Damaged as damage:
                self._set_aside(path, damage)
                continue
            self._record_files.add(path.name)
            self.records.update((record.digest, record) for record in records)

    # Doing ---------------------------------------------------------------------------------------------------------------------

    def realise(self, step: Step) -> Any:
        """The value of `step`: remembered, read, or made now (once, also when several processes ask)."""
        value = self._find(step)
        if value is not None:
            return value
        if step.rebuilds:
            value = step.run(self.realise)
        else:
            with self.locks.hold(step.digest):
                if isinstance(step, Measure):
                    self.refresh()
                value = self._find(step, locked=True)
                if value is None and isinstance(step, Part) and self._find(step.whole) is not None:
                    return Rows()  # another process has put the whole together: no part of it is needed any more
                if value is None:
                    value = self._make(step)
        self.memory.remember(step, value)
        return value

    def _find(self, step: Step, *, locked: bool = False) -> Any | None:
        record = self.records.get(step.digest)
        if record is not None:
            if record.outcome is not None:
                stopped = Stopped(record.outcome, record.sentence or "")
                stopped.recorded = True
                raise stopped
            return record.values
        value = self.memory.recall(step)
        if value is None and not step.rebuilds and not isinstance(step, Measure):
            value = self._read(step, locked=locked)
            if value is not None:
                self.memory.remember(step, value)
        return value

    def _read(self, step: Step, *, locked: bool) -> Any | None:
        folder = self.folder(step)
        if not (folder / MANIFEST).exists():
            return None
        try:
            if step.digest not in self._verified:
                verify(folder)
                self._verified.add(step.digest)
            return artefacts.read(step, folder, maps=self.path / "maps")
        except Damaged as damage:
            if locked:  # else another process may be mending it
                self._set_aside(folder, damage)
            return None

    def _make(self, step: Step) -> Any:
        started, partial = time.perf_counter(), self.path / "partial" / step.digest
        parts = step.parts if isinstance(step, Sample) else ()
        before = sum(self.seconds(part) or 0.0 for part in parts)
        try:
            with kept_in(partial):
                value = step.run(self.realise)
        except Stopped as stopped:
            if not stopped.recorded:  # else a step that this one stands on is to blame
                seconds, stopped.recorded = time.perf_counter() - started, True
                outcome, sentence = stopped.outcome, stopped.sentence
                self.record([Record(digest=step.digest, kind=step.kind, seconds=seconds, outcome=outcome, sentence=sentence)])
                shutil.rmtree(partial, ignore_errors=True)
            raise
        seconds = before + time.perf_counter() - started
        if isinstance(step, Measure):
            self.record([Record(digest=step.digest, kind=step.kind, seconds=seconds, values=value)])
        else:
            value = self._store(step, value, seconds)
        for folder in (partial, *(partial.parent.glob(f"{step.digest}.*") if isinstance(step, Sample) else ())):
            shutil.rmtree(folder, ignore_errors=True)
        return value

    def temporary(self) -> Path:
        """A new name in tmp/, which says whose it is."""
        return self.path / "tmp" / f"{socket.gethostname()}+{os.getpid()}+{uuid.uuid4().hex[:12]}"

    def _store(self, step: Step, value: Any, seconds: float) -> Any:
        temporary = self.temporary()
        with plain_errors(f"writing the result of a {step.kind} step", self.path):
            temporary.mkdir(parents=True)
            try:
                artefacts.write(step, value, temporary)
                about = artefacts.describe(step) | self._audited(step, value)
                seal(temporary, {"format": FORMAT, "seconds": seconds, "made": time.time()} | about)
                value = self._offer(step, value, temporary)
                publish(temporary, self.folder(step))
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        self._verified.add(step.digest)
        return value

    def _offer(self, step: Step, value: Any, folder: Path) -> Any:
        """The value of `step` as all who share the workspace have it; called with its sealed folder, before that gets its name."""
        return value

    def _audited(self, step: Step, value: Any) -> dict[str, Any]:
        """What the manifest says of the rows that a step made; real ones set what closes a sequence. And who made a model."""
        if isinstance(step, Fit) and granted().count > 1 and "devices" in step.learner.provides:
            return {"devices": granted().count}  # no part of its identity, and what the last bits depend on
        if isinstance(step, Draw):
            return {"audit": audit(value.train)}
        if isinstance(step, Sample | Alter):
            return {"audit": audit(value, closing=(self.audit(step.model.draw) or {}).get("closing"))}
        return {}

    def audit(self, step: Step) -> dict[str, Any] | None:
        """What was noted of the rows when they were written; None where they are rebuilt, missing, or of an earlier version."""
        found = (self.manifest(step) or {}).get("audit")
        return found if isinstance(found, dict) else None

    def record(self, records: Iterable[Record]) -> None:
        """Write numbers and outcomes; when this returns they are on disk."""
        records = list(records)
        if not records:
            return
        with plain_errors("writing results", self.path):
            path = write_records(self.path / "records", records)
        self._record_files.add(path.name)
        self.records.update((record.digest, record) for record in records)

    def trim(self, step: Step, positions: np.ndarray) -> int:
        """Keep of the rows that `step` made only those at sorted `positions`; returns the bytes that this freed.

        The rows keep their positions, their shard its origin. What is asked for again later is made again.
        """
        folder = self.folder(step)
        with self.locks.hold(step.digest), plain_errors("trimming a shard", self.path):
            value = self._read(step, locked=True)
            if value is None:
                return 0
            rows = value.train if isinstance(step, Draw) else value
            have = rows[POSITION] if POSITION in rows.names else np.arange(len(rows))
            kept = np.isin(have, positions)
            if kept.all():
                return 0
            path = shard_file(folder, step.kind)
            before, fewer = path.stat().st_size, rows.take(np.flatnonzero(kept)).with_columns(**{POSITION: have[kept]})
            temporary = folder / f".rows.{uuid.uuid4().hex[:8]}"
            artefacts.write_rows(fewer, temporary, origin=step.shard.origin, digest=step.digest)  # type: ignore[attr-defined]
            os.replace(temporary, path)
            manifest = json.loads((folder / MANIFEST).read_bytes())
            manifest = {key: value for key, value in manifest.items() if key not in ("outputs", "self")}
            seal(folder, manifest | {"kept": len(fewer)})
            self.memory.forget(step)
            return before - path.stat().st_size

    # Keeping order -------------------------------------------------------------------------------------------------------------

    def tidy(self) -> None:
        """Merge record files when there are many, and clear what killed processes left half-written."""
        for leftover in (self.path / "tmp").iterdir():
            if is_leftover(leftover):
                shutil.rmtree(leftover, ignore_errors=True)
        self._merge_records()

    def share(self, folder: Path) -> None:
        """Let others see the results in `folder`, which lies in this workspace: here they do."""

    def _merge_records(self) -> None:
        with self.locks.hold(b"merge".hex().ljust(32, "0")):
            self.refresh()
            names = {path.name for path in (self.path / "records").glob("*.parquet")} & self._record_files
            if len(names) <= MAX_RECORD_FILES:
                return
            with plain_errors("merging results", self.path):
                merged = write_records(self.path / "records", self.records.values())
            self._record_files.add(merged.name)
            for name in names - {merged.name}:
                (self.path / "records" / name).unlink(missing_ok=True)

    def _set_aside(self, path: Path, damage: Damaged) -> None:
        target = self.path / "damaged" / f"{path.name}-{uuid.uuid4().hex[:6]}"
        try:
            os.rename(path, target)
        except FileNotFoundError:
            return  # another process was first
        warnings.warn(DamagedWarning(f"{damage.message}; set aside in {target} and made again"), stacklevel=3)


def is_leftover(path: Path) -> bool:
    """Whether an entry of tmp/ belonged to a process of this machine that is gone."""
    host, _, owner = path.name.rpartition("+")[0].rpartition("+")
    return host == socket.gethostname() and owner.isdigit() and not alive(int(owner))


def alive(process: int) -> bool:
    """Whether a process of this machine is there."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

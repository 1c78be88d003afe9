"""A workspace in an object store: what is known lies there, and a folder of this machine is its cache."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from refeed.core.cache import cache_folder
from refeed.core.errors import Damaged, NotAWorkspace, WorkspaceError
from refeed.core.steps import Measure, Sample, Step
from refeed.workspace import artefacts
from refeed.workspace.claims import Claims
from refeed.workspace.files import MANIFEST, publish, verify, write_bytes
from refeed.workspace.locks import StepLocks
from refeed.workspace.objects import ObjectStore, is_url
from refeed.workspace.records import Record
from refeed.workspace.workspace import FORMAT, DamagedWarning, Workspace

MARKER = "refeed.json"


def open_workspace(address: str | Path) -> Workspace:
    """The workspace in a folder, or at a URL."""
    return RemoteWorkspace(str(address)) if is_url(address) else Workspace(address)


class RemoteWorkspace(Workspace):
    """A workspace under the prefix of a URL, such as s3://bucket/prefix.

        refeed.json                       the format version, and the workspace's identity
        manifests/<digest>.json           created once: that a step is done, and which attempt counts
        steps/<digest>/<attempt>/...      its files
        records/<sha256>.parquet          numbers and outcomes
        claims/<digest>/<term>            who is doing it
        studies/<name>/                   results and reports

    `path` is a folder of this machine in which everything that was made or read here is kept as well; it may be removed when no
    run is going on. States of interrupted fits stay in it: they are taken up on the machine where they were left.
    """

    trims = False

    def __init__(self, url: str) -> None:
        self.store = ObjectStore(url)
        self._there: set[str] = set()
        folder = cache_folder() / "workspaces" / _identity(self.store)
        self._manifests = folder / "manifests"
        super().__init__(folder)
        self.locks = _Both(folder / "lock", Claims(self.store))

    @property
    def address(self) -> str:
        return self.store.url

    # What is known -------------------------------------------------------------------------------------------------------------

    def has(self, step: Step) -> bool:
        return step.digest in self._there or super().has(step)

    def refresh(self) -> None:
        """Learn which steps are done, and read the records that others have written since."""
        self._manifests.mkdir(parents=True, exist_ok=True)
        manifests = {_name(path): path for path in self.store.names("manifests")}
        missing = [path for name, path in manifests.items() if not (self._manifests / name).exists()]
        for path, content in self.store.read_many(missing).items():
            write_bytes(self._manifests / _name(path), content)
        self._there = {Path(name).stem for name in manifests}
        records = {_name(path): path for path in self.store.names("records")}
        local = {path.name for path in (self.path / "records").glob("*.parquet")}
        for path, content in self.store.read_many(records[name] for name in records.keys() - local).items():
            if hashlib.sha256(content).hexdigest() != Path(path).stem:
                warnings.warn(DamagedWarning(f"{self.address}/{path} does not match its checksum; it is made again"), stacklevel=2)
                self.store.remove([path])
                continue
            write_bytes(self.path / "records" / _name(path), content)
        super().refresh()
        for name in sorted((local & self._record_files) - records.keys()):  # written by a process that was killed before it told
            self.store.upload(self.path / "records" / name, f"records/{name}")

    def manifest(self, step: Step) -> dict[str, Any] | None:
        found = super().manifest(step)
        if found is None and step.digest in self._there:
            try:
                return dict(json.loads((self._manifests / f"{step.digest}.json").read_bytes())["manifest"])
            except (OSError, ValueError, KeyError, TypeError):
                return None
        return found

    def bring(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if not isinstance(step, Measure) and step.digest in self._there and super().manifest(step) is None:
                self._fetch(step, locked=False)

    # Doing ---------------------------------------------------------------------------------------------------------------------

    def _read(self, step: Step, *, locked: bool) -> Any | None:
        value = super()._read(step, locked=locked)
        if value is None and super().manifest(step) is None and self._fetch(step, locked=locked):
            value = super()._read(step, locked=locked)
        return value

    def _fetch(self, step: Step, *, locked: bool) -> bool:
        """Bring what `step` made into the folder; whether it is there now."""
        name = f"manifests/{step.digest}.json"
        content = self.store.read(name)
        if content is None:
            return False
        temporary = self.temporary()
        try:
            self._download(step, content, temporary)
            publish(temporary, self.folder(step))
        except Damaged as damage:
            if locked:  # else another process may be mending it
                warnings.warn(DamagedWarning(f"{damage.message} in {self.address}; it is made again"), stacklevel=3)
                self.store.remove([name])
            return False
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self._verified.add(step.digest)
        return True

    def _download(self, step: Step, content: bytes, folder: Path) -> None:
        """The files of a published step, every one checked against its checksum."""
        try:
            about = json.loads(content)
            attempt, manifest = str(about["attempt"]), dict(about["manifest"])
            folder.mkdir(parents=True)
            for name in manifest["outputs"]:
                if not (folder / name).resolve().is_relative_to(folder.resolve()):
                    raise ValueError(f"{name} leads elsewhere")
                self.store.download(f"steps/{step.digest}/{attempt}/{name}", folder / name)
            write_bytes(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
        except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
            raise Damaged(f"what is stored of the {step.kind} step {step.digest} is not whole: {error}") from None
        verify(folder)

    def _offer(self, step: Step, value: Any, folder: Path) -> Any:
        """Publish the sealed `folder`; where another was first, put that one's files into it, and return their value."""
        attempt, place = uuid.uuid4().hex, f"steps/{step.digest}"
        manifest = json.loads((folder / MANIFEST).read_bytes())
        mine = [f"{place}/{attempt}/{name}" for name in manifest["outputs"]]
        for name, path in zip(mine, manifest["outputs"], strict=True):
            self.store.upload(folder / path, name)
        name = f"manifests/{step.digest}.json"
        if not self.store.create(name, json.dumps({"attempt": attempt, "manifest": manifest}).encode()):
            self.store.remove(mine)
            shutil.rmtree(folder)
            self._download(step, self.store.read(name) or b"", folder)
            return artefacts.read(step, folder)
        self.store.remove(set(self.store.names(place)) - set(mine))  # of killed processes; what is not named now never will be
        for part in step.parts if isinstance(step, Sample) else ():
            self.store.remove([f"manifests/{part.digest}.json"])
            self.store.remove(self.store.names(f"steps/{part.digest}"))
        return value

    def record(self, records: Iterable[Record]) -> None:
        before = set(self._record_files)
        super().record(records)
        for name in sorted(self._record_files - before):
            self.store.upload(self.path / "records" / name, f"records/{name}")

    def _merge_records(self) -> None:
        """Not here: a file that another is about to read would be gone."""

    # Results -------------------------------------------------------------------------------------------------------------------

    def share(self, folder: Path) -> None:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.store.upload(path, path.relative_to(self.path).as_posix())

    def bring_results(self) -> None:
        """Bring the results of every study into the folder."""
        for name, content in self.store.read_many(self.store.names("studies")).items():
            path = self.path / name
            if not path.resolve().is_relative_to(self.path.resolve()):
                raise WorkspaceError(f"{self.address} holds a name that leads elsewhere: {name}.")
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, content)


class _Both(StepLocks):
    """The lock between processes of this machine, and the claim between machines."""

    def __init__(self, path: Path, claims: Claims) -> None:
        super().__init__(path)
        self._claims = claims

    @contextmanager
    def hold(self, digest: str, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        with ExitStack() as held:
            held.enter_context(super().hold(digest, on_wait=on_wait))
            held.enter_context(self._claims.hold(digest, on_wait=on_wait))
            yield


def _identity(store: ObjectStore) -> str:
    """Which workspace lies there; a new one where there is nothing."""
    content = store.read(MARKER)
    if content is None:
        if store.names("") and store.read(MARKER) is None:  # else another made it meanwhile
            hint = "Choose a prefix below which there is nothing."
            raise NotAWorkspace(f"{store.url} holds objects but is not a refeed workspace (there is no {MARKER}).", hint)
        new = [json.dumps({"format": FORMAT, "id": uuid.uuid4().hex}).encode() for _ in range(2)]
        if store.create(MARKER, new[0]) and store.create(MARKER, new[1]):
            store.remove([MARKER])
            raise NotAWorkspace(
                f"{store.url} does not refuse to write a name that exists, so two runs could do one step.",
                "Choose another store, or a folder.",
            )
        content = store.read(MARKER)
    try:
        about = json.loads(content or b"")
        form, identity = about["format"], uuid.UUID(about["id"]).hex
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NotAWorkspace(f"{store.url}/{MARKER} is damaged.") from None
    if form != FORMAT:
        raise NotAWorkspace(f"{store.url} was written in format {form}; this version of refeed reads format {FORMAT}.")
    return identity


def _name(path: str) -> str:
    return path.rpartition("/")[2]

"""Workers on other machines: do they see the workspace, honour its locks, and run what the driver runs? Asked before any step."""

from __future__ import annotations

import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from refeed.core.errors import EngineError, RefeedError
from refeed.core.recipes import join
from refeed.studies.environment import versions
from refeed.workspace import RemoteWorkspace, Workspace
from refeed.workspace.locks import StepLocks
from refeed.workspace.objects import ObjectStore, is_url


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a worker is asked to compare with what it finds: a file in the workspace, a lock that is held, and versions."""

    workspace: str
    folder: str
    token: str
    versions: dict[str, str]
    lock: bool = True  # whether the driver holds the probe's lock; not where jobs outlive it


@contextmanager
def probing(workspace: Workspace) -> Iterator[Probe]:
    """A probe file in the workspace and a lock on its name, there for as long as workers may look."""
    path, token = workspace.path.absolute(), uuid.uuid4().hex
    if isinstance(workspace, RemoteWorkspace):
        place = f"tmp/{token}"
        workspace.store.write(f"{place}/probe", token.encode())
        try:
            yield Probe(workspace=workspace.address, folder=place, token=token, versions=versions(), lock=False)
        finally:
            workspace.store.remove(workspace.store.names(place))
        return
    folder = path / "tmp" / f"{socket.gethostname()}+{os.getpid()}+{token[:12]}"
    folder.mkdir(parents=True)
    try:
        (folder / "probe").write_text(token)
        with workspace.locks.hold(join("probe", token)):
            yield Probe(workspace=str(path), folder=str(folder), token=token, versions=versions())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def look(probe: Probe) -> RefeedError | None:
    """In a worker: what keeps it from taking part, or None. It leaves an answer, so that the driver knows it can read from it."""
    here = f"the machine {socket.gethostname()}"
    if differing := differences(probe.versions, versions()):
        return EngineError(
            f"{here} runs other versions than this one: {'; '.join(differing)}.",
            hint="Results would depend on who does a step. Install the same versions on both.",
        )
    if is_url(probe.workspace):
        return _look_at_store(probe, here)
    folder = Path(probe.folder)
    try:
        seen = (folder / "probe").read_text()
    except OSError:
        seen = ""
    if seen != probe.token:
        return EngineError(
            f"{here} does not see the workspace {probe.workspace}.",
            hint="Choose a folder on a file system that all machines share, with --workspace FOLDER.",
        )
    try:
        (folder / _answer()).write_text(probe.token)
    except OSError as error:
        return EngineError(f"{here} cannot write to the workspace {probe.workspace}: {os.strerror(error.errno or 0)}.")
    if probe.lock and StepLocks(Path(probe.workspace) / "lock").is_free(join("probe", probe.token)):
        return EngineError(
            f"{here} does not see the locks that this one holds in the workspace {probe.workspace}, so steps could be done twice.",
            hint="Use a file system with record locks between machines (NFSv4; Lustre mounted with -o flock).",
        )
    return None


def _look_at_store(probe: Probe, here: str) -> RefeedError | None:
    try:
        store = ObjectStore(probe.workspace)
        seen = store.read(f"{probe.folder}/probe")
        store.write(f"{probe.folder}/{_answer()}", probe.token.encode())
    except RefeedError as error:
        return EngineError(f"{here}: {error.message}", hint=error.hint)
    if seen != probe.token.encode():
        return EngineError(f"{here} does not see the workspace {probe.workspace}.")
    return None


def answered(probe: Probe) -> bool:
    """Whether anything arrived that a worker left."""
    if is_url(probe.workspace):
        return len(ObjectStore(probe.workspace).names(probe.folder)) > 1
    return any(Path(probe.folder).glob("*+*"))


def _answer() -> str:
    return f"{socket.gethostname()}+{os.getpid()}"


def differences(ours: dict[str, str], theirs: dict[str, str]) -> list[str]:
    """Where two sets of versions differ, in words."""
    return [
        f"{name} {theirs.get(name, 'is missing')} instead of {ours.get(name, 'nothing')}"
        for name in {**ours, **theirs}
        if ours.get(name) != theirs.get(name)
    ]

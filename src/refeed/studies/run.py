"""Running a study: against a workspace, where every step is kept, or in a folder that is gone at the end."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refeed.core.errors import StudyError
from refeed.core.steps import Fit, Measure, Part, Step
from refeed.studies.collect import collect
from refeed.studies.engines import Engine, Event, inline
from refeed.studies.environment import environment
from refeed.studies.retention import retain
from refeed.studies.study import Study
from refeed.studies.tasks import Plan, plan
from refeed.workspace import Workspace, open_workspace
from refeed.workspace.garbage import note_needs

if TYPE_CHECKING:
    from refeed.report.results import Results


def run(
    study: Study,
    *,
    workspace: Workspace | str | Path | None = None,
    engine: Engine = inline,
    listener: Callable[[Event], None] | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    command: str = "",
) -> Results:
    """Do what is missing of `study` and return its results.

    With a `workspace` every step is kept and never done again; without one the study runs in a temporary folder that is removed at
    the end. Bits are equal for equal numbers of threads: the command line sets one, a notebook may have more.
    A lineage that stops (see `refeed.core.errors.OUTCOMES`) is part of the results, not an exception.
    """
    if workspace is None:
        with tempfile.TemporaryDirectory(prefix="refeed-") as folder:
            store = Workspace(folder)
            try:
                return run(study, workspace=store, engine=engine, listener=listener, on_plan=on_plan, command=command)
            finally:
                store.locks.close()
    store = workspace if isinstance(workspace, Workspace) else open_workspace(workspace)
    for case in study.cases:
        if hasattr(case.source, "only_planned"):
            raise StudyError(case.source.only_planned, hint="Name a source that is there, with --set source.kind=...")
    if study.rows == "needed" and not store.trims:
        message = f"rows = 'needed' frees rows of a folder as it goes, which is not done at {store.address}."
        raise StudyError(message, hint="Type: --set rows=all, or choose a folder with --workspace FOLDER.", at="rows")
    started, clock = datetime.now(UTC), time.perf_counter()
    note: dict[str, Any] = {"study": study.name, "digest": study.digest, "steps": _kept_steps(study)}
    note_needs(store, **note, done=False)
    todo = plan(study, store)
    if on_plan is not None:
        on_plan(todo)
    ledger = _Ledger(listener, study, store)
    try:
        engine(todo, store, ledger)
    finally:
        store.refresh()
        store.tidy()
    note_needs(store, **note, done=True)
    about = {
        "command": command or " ".join(sys.argv),
        "started": started.isoformat(timespec="seconds"),
        "wall_seconds": time.perf_counter() - clock,
        "engine": getattr(engine, "name", type(engine).__name__),
        "workers": getattr(engine, "workers", 1) or 0,  # 0: as many as the cluster had
        "steps": ledger.steps(todo, plan(study, store)),
        "environment": environment(),
        "study_digest": study.digest,
        "errors": ledger.errors,
    }
    store.bring(_shown_steps(study))
    return collect(study, store, about)


def _shown_steps(study: Study) -> Iterator[Step]:
    """The steps whose rows are looked at for the results: those of the first lineage of each case and policy."""
    arms = (arm for arm in study.arms if arm.seed == study.seeds[0] and not arm.lineage.source.rebuilds)
    return (step for arm in arms for turn in arm.turns for step in turn.steps if not isinstance(step, Part | Fit))


def _kept_steps(study: Study) -> list[str]:
    """The digests of every step of a study that leaves an artefact."""
    turns = (turn for arm in study.arms if not arm.lineage.source.rebuilds for turn in arm.turns)
    return list(dict.fromkeys(step.digest for turn in turns for step in turn.steps if not isinstance(step, Measure | Part)))


def results_folder(workspace: Workspace, study: Study, unchanged: Study | None = None) -> Path:
    """Where the results of a study lie; one that differs from the file as it stands (`unchanged`) gets a folder of its own."""
    same = unchanged is None or unchanged.digest == study.digest
    return workspace.path / "studies" / (study.name if same else f"{study.name}-{study.digest[:6]}")


class _Ledger:
    """Passes events on, and keeps the seconds and the errors."""

    def __init__(self, listener: Callable[[Event], None] | None, study: Study, store: Workspace) -> None:
        self._listener, self._study, self._store = listener, study, store
        self._seconds: dict[str, float] = {}
        self.errors: list[dict[str, Any]] = []

    def __call__(self, event: Event) -> None:
        if event.kind == "ended":
            kind = "measure" if event.task.kind == "lineages" else event.task.kind
            self._seconds[kind] = self._seconds.get(kind, 0.0) + event.seconds
            for arm, error in event.result.errors.items():
                self.errors.append({"arm": arm, "step": event.task.kind, "generation": event.task.generation, "traceback": error})
            if self._study.rows == "needed" and event.task.kind in ("fit", "measure"):
                self._store.refresh()
                retain(self._study, self._store)
        if self._listener is not None:
            self._listener(event)

    def steps(self, todo: Plan, after: Plan) -> dict[str, dict[str, float]]:
        """By kind: how many distinct steps there are, how many ran now, how many were there before, and the seconds it took."""
        found = {}
        for kind, (total, left) in todo.counts.items():
            run = left - after.counts.get(kind, (0, 0))[1]
            found[kind] = {"total": total, "run": run, "reused": total - left, "seconds": self._seconds.get(kind, 0.0)}
        return found

"""Running a study: against a workspace, where every step is kept, or in memory."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refeed.core.recipes import digest
from refeed.studies.collect import collect
from refeed.studies.engines import Engine, Event, inline
from refeed.studies.environment import environment
from refeed.studies.study import Study
from refeed.studies.tasks import Plan, plan
from refeed.workspace import Workspace

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

    With a `workspace` every step is kept and never done again; without one the study runs in a folder that is removed at the end.
    A lineage that stops (see `refeed.core.errors.OUTCOMES`) is part of the results, not an exception.
    """
    if workspace is None:
        with tempfile.TemporaryDirectory(prefix="refeed-") as folder:
            return run(study, workspace=folder, engine=engine, listener=listener, on_plan=on_plan, command=command)
    store = workspace if isinstance(workspace, Workspace) else Workspace(workspace)
    started, clock = datetime.now(UTC), time.perf_counter()
    todo = plan(study, store)
    if on_plan is not None:
        on_plan(todo)
    ledger = _Ledger(listener)
    try:
        engine(todo, store, ledger)
    finally:
        store.refresh()
        store.tidy()
    about = {
        "command": command or " ".join(sys.argv),
        "started": started.isoformat(timespec="seconds"),
        "wall_seconds": time.perf_counter() - clock,
        "engine": getattr(engine, "__name__", type(engine).__name__.lower()),
        "workers": getattr(engine, "workers", 1),
        "steps": ledger.steps(todo),
        "environment": environment(),
        "study_digest": study.digest,
        "errors": ledger.errors,
    }
    return collect(study, store, about)


def results_folder(workspace: Workspace, study: Study, overrides: Sequence[str] = ()) -> Path:
    """Where the results of a study lie; one that was changed on the command line gets a folder of its own."""
    changed = [*overrides, *([study.scale] if study.scale != "small" else [])]
    suffix = f"-{digest(sorted(changed))[:6]}" if changed else ""
    return workspace.path / "studies" / f"{study.name}{suffix}"


class _Ledger:
    """Passes events on, and keeps the seconds and the errors."""

    def __init__(self, listener: Callable[[Event], None] | None) -> None:
        self._listener = listener
        self._seconds: dict[str, float] = {}
        self.errors: list[dict[str, Any]] = []

    def __call__(self, event: Event) -> None:
        if event.kind == "ended":
            kind = "measure" if event.task.kind == "lineages" else event.task.kind
            self._seconds[kind] = self._seconds.get(kind, 0.0) + event.seconds
            if event.error is not None:
                self.errors.append({"arms": list(event.task.arms), "step": event.task.kind, "traceback": event.error})
        if self._listener is not None:
            self._listener(event)

    def steps(self, todo: Plan) -> dict[str, dict[str, float]]:
        return {
            kind: {"total": total, "run": left, "reused": total - left, "seconds": self._seconds.get(kind, 0.0)}
            for kind, (total, left) in todo.counts.items()
        }

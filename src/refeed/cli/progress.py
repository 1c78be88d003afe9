"""Progress on a terminal: one bar for the study, one line a running step. Silent elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refeed.studies.engines import Event
    from refeed.studies.tasks import Plan


class Display:
    """Shows what an engine does, from its events."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._on = sys.stderr.isatty() and not quiet
        self._bars: dict[str, Any] = {}
        self._plan: Plan | None = None
        self._progress: Any = None

    def __enter__(self) -> Display:
        if self._on:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )
            from rich.table import Column

            console = Console(stderr=True)
            # what a step says of itself is never cut: on a narrow terminal its name is, and the bar goes
            roomy = (BarColumn(bar_width=20), TimeElapsedColumn()) if console.width >= 120 else ()
            self._progress = Progress(
                TextColumn("{task.description}", table_column=Column(no_wrap=True, ratio=1)),
                *roomy,
                MofNCompleteColumn(table_column=Column(no_wrap=True)),
                TextColumn("{task.fields[rate]}", table_column=Column(no_wrap=True)),
                TimeRemainingColumn(table_column=Column(no_wrap=True)),
                console=console,
                transient=True,
                expand=True,
            )
            self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._on:
            self._progress.stop()

    def plan(self, plan: Plan) -> None:
        self._plan = plan
        if self._on:
            description = f"{plan.study.name}: tasks"
            self._bars["all"] = self._progress.add_task(description, total=len(plan.tasks), completed=len(plan.done), rate="")

    def event(self, event: Event) -> None:
        if not self._on:
            return
        key = event.task.key
        if event.kind == "ended":
            self._progress.advance(self._bars["all"])
            if key in self._bars:
                self._progress.remove_task(self._bars.pop(key))
        elif event.kind == "tick":
            if key not in self._bars:
                self._bars[key] = self._progress.add_task(self._name(event), total=event.total, rate="")
            task = self._progress.tasks[self._progress.task_ids.index(self._bars[key])]
            rate = event.note or (f"{event.done / task.elapsed:,.0f} {event.unit}/s" if task.elapsed else event.unit)
            self._progress.update(self._bars[key], completed=int(event.done), total=int(event.total), rate=rate)

    def _name(self, event: Event) -> str:
        assert self._plan is not None
        arm = self._plan.study.arms[event.task.arms[0]]
        return f"  {event.task.kind} {arm.case.name}, {arm.policy}, seed {arm.seed}, generation {event.task.generation}"

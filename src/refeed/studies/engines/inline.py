"""The plainest engine: one task after the other, here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from refeed.studies.engines.base import Listener, Queue, perform_and_tell, refuse_what_is_not_here
from refeed.studies.tasks import Plan
from refeed.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Inline:
    """One task after the other in this process, so that a debugger works."""

    name: ClassVar[str] = "inline"

    def __call__(self, plan: Plan, workspace: Workspace, listener: Listener) -> None:
        refuse_what_is_not_here(plan)
        queue = Queue(plan)
        while (task := queue.next()) is not None:
            event = perform_and_tell(task, plan.study, workspace, listener)
            queue.ended(task, failed=event.result.failed)
            listener(event)


inline = Inline()

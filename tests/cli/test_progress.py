"""What a terminal shows while a study runs."""

from __future__ import annotations

import io
import re

import pytest

from refeed.cli.progress import Display
from refeed.studies.engines import Event
from refeed.studies.tasks import plan
from refeed.workspace import Workspace
from toy import kept_study


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [80, 140])
def test_what_a_step_says_of_itself_is_never_cut(width, monkeypatch, tmp_path):
    screen, note = Terminal(), "loss 2.776, 120,841 tokens/s, 29% MFU"
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("COLUMNS", str(width))
    todo = plan(kept_study(), Workspace(tmp_path))
    fit = next(task for task in todo.tasks.values() if task.kind == "fit")
    with Display() as display:
        display.plan(todo)
        display.event(Event(kind="tick", task=fit, done=1234, total=66235, unit="steps", note=note))
    lines = [line for line in re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())) if note in line]
    assert lines
    assert all("fit toy" in line and "/66235" in line and len(line) <= width for line in lines)

"""A clock that jumps changes nothing: what is done stays done, and no file is judged by its time."""

import os
import time
from datetime import UTC, datetime

import pytest

from refeed.studies import run
from refeed.workspace import Workspace
from refeed.workspace.garbage import collect, find
from toy import Slow, kept_study

YEARS = 365 * 86400.0


@pytest.fixture
def clock(monkeypatch):
    """The wall clock, shifted by as many years as are asked for."""
    real = time.time

    def jump(years):
        monkeypatch.setattr(time, "time", lambda: real() + years * YEARS)

    return jump


def test_a_run_that_is_resumed_under_another_time_does_nothing_again(tmp_path, clock):
    log = tmp_path / "log"
    clock(+30)
    run(kept_study(generations=2, learner=Slow(log=str(log))), workspace=tmp_path / "w")
    done = len(log.read_text().splitlines())
    clock(-30)
    extended = run(kept_study(generations=3, learner=Slow(log=str(log))), workspace=tmp_path / "w")
    assert len(log.read_text().splitlines()) == done + 2 * 3  # one generation more of two seeds under three policies
    clock(0)
    assert extended.scores.equals(run(kept_study(generations=3), workspace=tmp_path / "v").scores)


@pytest.mark.parametrize("years", [-40, 40])
def test_file_times_decide_nothing(tmp_path, years):
    study, store = kept_study(generations=2), tmp_path / "w"
    first = run(study, workspace=store)
    moment = datetime(2026, 1, 1, tzinfo=UTC).timestamp() + years * YEARS
    for path in store.rglob("*"):
        os.utime(path, (moment, moment))
    again = run(study, workspace=store)
    assert again.scores.equals(first.scores)
    assert again.ledger.equals(first.ledger)
    assert sum(kind["run"] for kind in again.run["steps"].values()) == 0


def test_gc_frees_the_same_whatever_the_clock_says(tmp_path, clock):
    clock(+10)
    old = kept_study(generations=3)
    run(old, workspace=tmp_path / "w").save(tmp_path / "w" / "studies" / "study")
    clock(-10)
    new = kept_study(generations=2)
    run(new, workspace=tmp_path / "w").save(tmp_path / "w" / "studies" / "study")
    store = Workspace(tmp_path / "w")
    free = {item.path.name for item in find(store).free}
    kept = {step.digest for arm in new.arms for turn in arm.turns for step in turn.steps}
    assert free
    assert not free & kept
    collect(store)
    assert sum(kind["run"] for kind in run(new, workspace=tmp_path / "w").run["steps"].values()) == 0

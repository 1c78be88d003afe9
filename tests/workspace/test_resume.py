"""Whatever was done once is never done again, and a run that was cut short ends as the uninterrupted one."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from refeed.core import checkpoints
from refeed.core.errors import Stopped
from refeed.families.regression.learner import LeastSquares
from refeed.studies import run
from refeed.studies.tasks import plan
from refeed.workspace import Workspace
from refeed.workspace.garbage import find
from toy import Slow, kept_study


def fits(path):
    return path.read_text().splitlines() if path.exists() else []


def test_a_finished_study_is_not_run_again(tmp_path):
    log = tmp_path / "log"
    study = kept_study(learner=Slow(log=str(log)))
    first = run(study, workspace=tmp_path / "w")
    done = fits(log)
    again = run(study, workspace=tmp_path / "w")
    assert fits(log) == done
    assert len(set(done)) == len(done)
    assert again.scores.equals(first.scores)
    assert {kind: steps["run"] for kind, steps in again.run["steps"].items()} == dict.fromkeys(again.run["steps"], 0)


def test_generation_one_is_computed_once_for_all_policies(tmp_path):
    log = tmp_path / "log"
    run(kept_study(seeds=(0,), generations=1, learner=Slow(log=str(log))), workspace=tmp_path / "w")
    assert len(fits(log)) == 1


def test_extending_runs_only_what_is_missing(tmp_path):
    log = tmp_path / "log"
    learner = Slow(log=str(log))
    run(kept_study(learner=learner, seeds=(0,), generations=3, names=("replace",)), workspace=tmp_path / "w")
    assert len(fits(log)) == 3
    run(kept_study(learner=learner, seeds=(0,), generations=5, names=("replace",)), workspace=tmp_path / "w")
    assert len(fits(log)) == 5
    run(kept_study(learner=learner, seeds=(0,), generations=5, names=("replace", "accumulate")), workspace=tmp_path / "w")
    assert len(fits(log)) == 9  # generation 1 is shared
    run(kept_study(learner=learner, seeds=(0, 1), generations=5, names=("replace", "accumulate")), workspace=tmp_path / "w")
    assert len(fits(log)) == 18


def test_an_extended_study_equals_one_that_was_long_from_the_start(tmp_path):
    run(kept_study(generations=2), workspace=tmp_path / "a")
    extended = run(kept_study(generations=4), workspace=tmp_path / "a")
    assert extended.scores.equals(run(kept_study(generations=4), workspace=tmp_path / "b").scores)


def test_a_new_metric_runs_no_fit(tmp_path):
    log = tmp_path / "log"
    run(kept_study(learner=Slow(log=str(log)), metrics=()), workspace=tmp_path / "w")
    done = fits(log)
    results = run(kept_study(learner=Slow(log=str(log))), workspace=tmp_path / "w")
    assert fits(log) == done
    assert results.scores.num_rows == 2 * 3 * 3


def test_kept_and_rebuilt_rows_give_the_same_numbers(tmp_path, regression_study):
    names = ("replace", "accumulate", "accumulate-subsample")
    kept = run(kept_study(seeds=(0, 1, 2), names=names), workspace=tmp_path / "w")
    rebuilt = run(regression_study(names=names), workspace=tmp_path / "v")
    assert np.array_equal(kept.scores["value"], rebuilt.scores["value"])


RUN = """
import sys
sys.path.insert(0, {tests!r})
from toy import Slow, kept_study
from refeed.studies import run
run(kept_study(seeds=(0, 1, 2), generations=4, learner=Slow(seconds=0.02, log={log!r})), workspace={workspace!r})
"""


def spawn(tmp_path, log="log"):
    code = RUN.format(tests=str(Path(__file__).parent.parent), log=str(tmp_path / log), workspace=str(tmp_path / "w"))
    return subprocess.Popen([sys.executable, "-c", code])


def test_killed_twenty_times_it_ends_as_the_uninterrupted_run(tmp_path):
    """SIGKILL at random moments, over and over, until it gets through: equal to the last bit, and nothing done in vain twice."""
    rng = np.random.default_rng(0)
    kills = 0
    while kills < 20:
        process = spawn(tmp_path)
        log = tmp_path / "log"
        size = log.stat().st_size if log.exists() else 0
        deadline = time.monotonic() + 20
        # Imports take most of a short process: wait for the first new fit, then kill at a random moment of the work.
        while process.poll() is None and time.monotonic() < deadline and (log.stat().st_size if log.exists() else 0) == size:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.04))
        process.kill()
        if process.wait() == 0:
            break
        kills += 1
    study = kept_study(seeds=(0, 1, 2), generations=4)
    resumed = run(study, workspace=tmp_path / "w")
    fresh = run(study, workspace=tmp_path / "v")
    assert kills >= 10
    assert resumed.scores.equals(fresh.scores)
    assert len(fits(tmp_path / "log")) <= len(set(fits(tmp_path / "log"))) + kills
    assert not list((tmp_path / "w" / "tmp").iterdir())
    assert not list((tmp_path / "w" / "damaged").iterdir())


@pytest.mark.parametrize("num_processes", [2, 4])
def test_processes_on_one_workspace_do_no_step_twice(tmp_path, num_processes):
    processes = [spawn(tmp_path) for _ in range(num_processes)]
    assert [process.wait() for process in processes] == [0] * num_processes
    done = fits(tmp_path / "log")
    assert len(done) == len(set(done)) == 3 * (1 + 3 * 3)
    study = kept_study(seeds=(0, 1, 2), generations=4)
    assert not plan(study, Workspace(tmp_path / "w")).pending
    assert run(study, workspace=tmp_path / "w").scores.equals(run(study, workspace=tmp_path / "v").scores)


def test_a_workspace_may_be_moved(tmp_path):
    study = kept_study()
    first = run(study, workspace=tmp_path / "w")
    (tmp_path / "w").rename(tmp_path / "elsewhere")
    assert not plan(study, Workspace(tmp_path / "elsewhere")).pending
    assert run(study, workspace=tmp_path / "elsewhere").scores.equals(first.scores)


@dataclass(frozen=True, kw_only=True)
class Counting:
    """Least squares that counts to ten, keeps how far it came, and falls over at `falls`; a count says where it began."""

    falls: int = 0
    outcome: str = ""
    provides: ClassVar[frozenset[str]] = LeastSquares.provides

    def identity(self):
        return {}

    def fit(self, data, *, world, seed, start=None):
        kept = checkpoints.Checkpoints()
        first = int(path.read_text()) if (path := kept.newest()) else 0
        for number in range(first + 1, 11):
            if number == self.falls and self.outcome:
                raise Stopped(self.outcome, "on purpose")
            if number == self.falls:
                raise KeyboardInterrupt
            if kept.due:
                kept.keep(number, lambda path, number=number: path.write_text(str(number)))
        BEGAN.append(first)
        return LeastSquares().fit(data, world=world, seed=seed)

    def load(self, folder):
        return LeastSquares().load(folder)


BEGAN = []


def test_an_interrupted_step_goes_on_from_what_it_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    BEGAN.clear()
    one = {"seeds": (0,), "generations": 1, "names": ("replace",)}
    with pytest.raises(KeyboardInterrupt):
        run(kept_study(learner=Counting(falls=8), **one), workspace=tmp_path / "w")
    (folder,) = (tmp_path / "w/partial").iterdir()
    assert [path.read_text() for path in folder.iterdir()] == ["7"]
    store = Workspace(tmp_path / "w")
    assert [item.kind for item in find(store).free] == []  # still wanted
    run(kept_study(learner=Counting(), **one), workspace=store)
    assert BEGAN == [7]
    assert not list((tmp_path / "w/partial").iterdir())


def test_a_stopped_step_leaves_no_state_and_gc_frees_what_nobody_wants(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    one = {"seeds": (0,), "generations": 1, "names": ("replace",)}
    run(kept_study(learner=Counting(falls=8, outcome="diverged"), **one), workspace=tmp_path / "w")
    assert not list((tmp_path / "w/partial").iterdir())
    (tmp_path / "w/partial/0123").mkdir()
    assert "interrupted" in [item.kind for item in find(Workspace(tmp_path / "w"), unrecorded=True).free]

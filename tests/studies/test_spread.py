"""A fit over two processes under every engine: the bytes of inline, also when its worker is killed or its job preempted."""

import os
import time
from pathlib import Path

import pytest

from fake_slurm import FakeSlurm
from refeed.studies import run
from refeed.studies.engines import Processes
from spread import MIDDLE, STEPS, spread_study, steps

pytest.importorskip("torch")
# Each starts two processes twice, half a minute of processor time: two of the five cases are done every time.
everything = pytest.mark.skipif("REFEED_TEST_SPREAD" not in os.environ, reason="takes minutes: set REFEED_TEST_SPREAD=1")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")]


def models(workspace):
    return {path.name: path.read_bytes() for path in (workspace / "steps").glob("*/model/*.safetensors")}


def ran(folder, *, end="", **options):
    study = spread_study(folder / "log", end=end)
    found = run(study, workspace=folder / "w", **options)
    assert not found.run["errors"], found.run["errors"][0]["traceback"]
    return models(folder / "w")


def left(folder):
    """Processes that have `folder` in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in words:
            found.append(words.replace(b"\0", b" "))
    return found


def assert_gone_on(folder):
    told = steps(folder / "log")
    assert (folder / "log" / "ended").exists()
    assert told[:MIDDLE] == list(range(1, MIDDLE + 1))
    assert told[-1] == STEPS
    again = told[told.index(MIDDLE) + 1 :]
    assert again[0] >= MIDDLE  # from the last state, and nothing before it
    assert len(told) <= STEPS + 2
    assert not left(folder / "w")
    assert not list((folder / "w" / "partial").iterdir())


@pytest.fixture(scope="module")
def inline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inline")
    found = ran(folder)
    assert steps(folder / "log") == list(range(1, STEPS + 1))
    assert len(found) == 1
    return found


@everything
def test_a_worker_process_that_is_killed_in_a_spread_fit(inline, tmp_path):
    assert ran(tmp_path, end="kill", engine=Processes(workers=1)) == inline
    assert_gone_on(tmp_path)


def test_a_worker_of_ray_that_is_killed_in_a_spread_fit(inline, tmp_path):
    pytest.importorskip("ray")
    from refeed.studies.engines.ray import Ray

    assert ran(tmp_path, end="kill", engine=Ray(workers=2)) == inline
    assert_gone_on(tmp_path)


def test_a_job_of_slurm_that_is_preempted_in_a_spread_fit(inline, tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    from refeed.studies.engines.slurm import Slurm

    with FakeSlurm(tmp_path / "slurm").running() as slurm:
        monkeypatch.setenv("PATH", f"{slurm.folder / 'bin'}:{os.environ['PATH']}")
        assert ran(tmp_path, end="preempt", engine=Slurm(poll_seconds=0.05, minutes=30)) == inline
        while "RUNNING" in slurm.states().values():
            time.sleep(0.05)
    assert_gone_on(tmp_path)
    assert set(slurm.states().values()) == {"COMPLETED"}  # the same job, requeued


@everything
@pytest.mark.parametrize("end", ["kill", "preempt"])
def test_a_process_of_submitit_that_is_ended_in_a_spread_fit(inline, tmp_path, end):
    pytest.importorskip("submitit")
    from refeed.studies.engines.slurm import Slurm

    assert ran(tmp_path, end=end, engine=Slurm(cluster="local", poll_seconds=0.05, minutes=30)) == inline
    assert_gone_on(tmp_path)

"""A policy and an engine from somebody else's package, found by their entry points, checked by the kit and run by name."""

import json
import os
import subprocess
import sys

import pytest

POLICY = '''
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Newest:
    """The newest rows of all kept ones, `rows` of them."""

    rows: int = 20

    def amount(self, state):
        return state.real.num_rows

    def keep(self, state, fresh, *, seed):
        return (state.pool + fresh).latest(2)

    def training_set(self, state, *, seed):
        return state.pool.subsample(self.rows, seed=seed) if state.generation > 1 else state.pool


@dataclass(frozen=True, kw_only=True)
class Cheat(Newest):
    """Learns from rows that it dropped."""

    def training_set(self, state, *, seed):
        return state.pool + state.real
'''

ENGINE = '''
from dataclasses import dataclass
from typing import ClassVar

from refeed.studies.engines import inline


@dataclass(frozen=True, kw_only=True)
class Counting:
    """Inline, and a file with as many lines as tasks ended."""

    file: str
    name: ClassVar[str] = "counting"

    def __call__(self, plan, workspace, listener):
        def counted(event):
            if event.kind == "ended":
                with open(self.file, "a") as file:
                    file.write(event.task.kind + "\\n")
            listener(event)

        inline(plan, workspace, counted)


class Elsewhere(Counting):
    """Needs what is not installed."""

    requires = ("no_such_module",)
    extra = "elsewhere"
'''


@pytest.fixture
def package(tmp_path):
    """An installed distribution, as importlib.metadata sees one."""
    site = tmp_path / "site"
    info = site / "somebodys_policies-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "somebodys_policies.py").write_text(POLICY)
    (site / "somebodys_engines.py").write_text(ENGINE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys-policies\nVersion: 1.0\n")
    points = "[refeed.policies]\nnewest = somebodys_policies:Newest\ncheat = somebodys_policies:Cheat\n"
    points += "[refeed.engines]\ncounting = somebodys_engines:Counting\nelsewhere = somebodys_engines:Elsewhere\n"
    (info / "entry_points.txt").write_text(points)
    return site


def refeed(*arguments, site, folder):
    command = [sys.executable, "-c", "from refeed.cli import main; main()", *arguments]
    path = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=os.environ | {"PYTHONPATH": path}, check=False)


def test_an_outside_policy_is_checked_and_run_by_name(package, tmp_path):
    checked = refeed("check", "newest", "--json", site=package, folder=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert set(json.loads(checked.stdout).values()) == {None}
    small = ["--set", "seeds=2", "--set", "generations=3", "--set", "source.rows=50", "--set", "source.noise=1.0"]
    policies = ["--set", 'policies=["replace", {kind="newest", rows=40}]', "--workers", "2"]
    done = refeed("run", "linear-regression", *small, *policies, "--json", site=package, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [row["policy"] for row in json.loads(done.stdout)["rows"]] == ["replace", "newest (rows 40)"]
    mistaken = refeed("run", "linear-regression", "--set", 'policies=["newst"]', site=package, folder=tmp_path)
    assert "did you mean 'newest'?" in mistaken.stderr


def test_a_policy_that_cheats_is_found_out(package, tmp_path):
    checked = refeed("check", "cheat", site=package, folder=tmp_path)
    assert checked.returncode == 1
    assert "broken  A training set takes rows from the pool only" in checked.stdout


def test_an_outside_engine_is_run_by_name(package, tmp_path):
    small = ["--set", "seeds=2", "--set", "generations=2", "--set", "source.rows=50", "--set", "source.noise=1.0"]
    command = ["run", "linear-regression", *small, "--engine"]
    done = refeed(*command, "counting", "--set", "counting.file=log", "--json", site=package, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"]["engine"] == "counting"
    assert (tmp_path / "log").read_text() == "lineages\n"
    lacking = refeed(*command, "counting", site=package, folder=tmp_path)
    assert (lacking.returncode, "needs the option 'file'" in lacking.stderr) == (2, True)
    missing = refeed(*command, "elsewhere", site=package, folder=tmp_path)
    assert missing.returncode == 2
    assert "engine 'elsewhere' needs no_such_module, which is not installed" in missing.stderr
    assert "pip install 'refeed[elsewhere]'" in missing.stderr

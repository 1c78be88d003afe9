"""A policy from somebody else's package, found by its entry point, checked by the kit and run by name."""

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


@pytest.fixture
def package(tmp_path):
    """An installed distribution, as importlib.metadata sees one."""
    site = tmp_path / "site"
    info = site / "somebodys_policies-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "somebodys_policies.py").write_text(POLICY)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys-policies\nVersion: 1.0\n")
    points = "[refeed.policies]\nnewest = somebodys_policies:Newest\ncheat = somebodys_policies:Cheat\n"
    (info / "entry_points.txt").write_text(points)
    return site


def refeed(*arguments, site, folder):
    command = [sys.executable, "-c", "from refeed.cli import main; main()", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=os.environ | {"PYTHONPATH": str(site)}, check=False
    )


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

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from refeed.core.devices import WAITING, threads


@pytest.mark.parametrize(
    ("ours", "told"),
    [
        ({}, {"GOMP_SPINCOUNT": "1000"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_how_threads_wait_is_told_unless_ours_says_so(monkeypatch, ours, told):
    for name in WAITING:
        monkeypatch.delenv(name, raising=False)
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    numbers = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    assert threads(2) == numbers | told


def test_the_command_line_tells_its_libraries_before_they_start():
    code = """
import os, sys
from refeed import cli
sys.argv = ["refeed", "--version"]
try:
    cli.main()
finally:
    print(os.environ["GOMP_SPINCOUNT"])
"""
    ours = {name: value for name, value in os.environ.items() if name not in WAITING}
    done = subprocess.run([sys.executable, "-c", code], env=ours, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("1000\n")

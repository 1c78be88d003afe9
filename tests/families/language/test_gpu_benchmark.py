"""The script that is to be run where a GPU is at hand works, as far as a processor can tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks/gpu.py"


@pytest.mark.slow
def test_the_script_runs_to_its_end_on_a_processor(tmp_path):
    command = [sys.executable, str(SCRIPT), "--tiny", "--device", "cpu", "--rounds", "1", "--json", str(tmp_path / "found.json")]
    command += ["--sections", "tests", "sampling", "training"]  # several devices take a minute, mostly to start processes
    environment = os.environ | {"PYTHONPATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found) == ["machine", "tests", "sampling", "training"]
    assert not [row for rows in found.values() for row in rows if "error" in row]
    assert found["tests"][0]["exit code"] == 0
    rates = {(row["contender"], row["dtype"]): row["tokens/s"] for row in found["sampling"] if "tokens/s" in row}
    assert {name for name, _ in rates} >= {"refeed, steps one by one", "generate"}
    assert min(rates.values()) > 0
    assert found["training"][0]["tokens/s"] > 0
    assert done.stdout.count("|---|") >= 4


def test_without_a_gpu_it_says_what_to_type():
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    import torch

    if not torch.cuda.is_available():
        assert done.returncode == 2
        assert "type --tiny --device cpu" in done.stderr

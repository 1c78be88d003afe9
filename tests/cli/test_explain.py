"""`refeed explain` as a user meets it."""

import json
import subprocess
import sys

import pytest
from test_cli import refeed

from refeed.studies import run
from toy import kept_study


@pytest.fixture
def folder(tmp_path):
    run(kept_study(seeds=(0,), generations=2), workspace=tmp_path / "runs")
    return tmp_path


def test_a_row_is_shown_with_the_way_back_to_real_data(folder):
    listed = refeed("explain", folder=folder).stdout.splitlines()
    digest = next(line for line in listed if "generation 2" in line).split()[0]
    done = refeed("explain", f"{digest[:16]}:3", folder=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"row 3 of shard {digest[:12]}: synthetic, generation 2")
    assert "real: KeptLinear(dimension=3, rows=30), seed 0/source" in done.stdout
    told = json.loads(refeed("explain", f"{digest}:3", "--json", folder=folder).stdout)
    assert told["row"]["row"] == 3
    assert set(told["row"]["values"]) == {"x", "y"}
    assert told["nodes"][digest]["sampler"]["kind"].endswith(":Relabel")
    real = next(line for line in listed if " real" in line).split()[0]
    assert ": real" in refeed("explain", f"{real}:0", folder=folder).stdout.splitlines()[0]


def test_what_cannot_be_explained_is_one_clear_error(folder):
    digest = refeed("explain", folder=folder).stdout.split()[0]
    model = next(p.parent.name for p in (folder / "runs" / "steps").glob("*/model"))
    for arguments, message in [
        (("ffffffffffffffff",), "has no shard"),
        ((f"{digest}:x",), "is not a row"),
        ((f"{digest}:30",), "no row 30 among the 30 rows"),
        ((f"{model}:1",), "is a model; it has no rows"),
        (("aa", "--workspace", "nowhere"), "is not a refeed workspace"),
    ]:
        done = refeed("explain", *arguments, folder=folder)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_explaining_imports_no_torch(folder):
    digest = refeed("explain", folder=folder).stdout.split()[0]
    code = f"""
import sys
sys.argv = ["refeed", "explain", "{digest}:0"]
from refeed.cli import main
try:
    main()
except SystemExit:
    pass
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)

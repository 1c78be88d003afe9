"""The README's program and the contributing guide's policy run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def programs(name):
    return re.findall(r"```python\n(.*?)```", (REPOSITORY / name).read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("number", range(len(programs("README.md"))))
def test_the_programs_of_the_readme_run(tmp_path, number):
    code = programs("README.md")[number]
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "accumulate" in done.stdout
    assert (tmp_path / "excess_risk.html").stat().st_size > 10_000


def test_the_policy_of_the_guide_works(lineage):
    from refeed.core.loop import turns

    names = {}
    exec(programs("CONTRIBUTING.md")[0], names)
    seen = [turn.train.rows_by_generation() for turn in turns(lineage(names["Window"](generations=2)), 4)]
    assert seen == [{0: 30}, {0: 30, 1: 30}, {1: 30, 2: 30}, {2: 30, 3: 30}]


def test_every_path_in_the_readme_exists():
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", (REPOSITORY / "README.md").read_text()):
        assert (REPOSITORY / path).exists(), path

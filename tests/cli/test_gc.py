"""`refeed gc` says first what it would free."""

import dataclasses
import json

from test_cli import refeed

from refeed.studies import run
from refeed.studies.run import results_folder
from refeed.workspace import Workspace
from toy import kept_study


def test_it_says_what_it_would_free_and_does_it_when_told(tmp_path):
    store = Workspace(tmp_path / "runs")
    for study in (kept_study(), kept_study(names=("replace",))):
        study = dataclasses.replace(study, name="mine")
        run(study, workspace=store).save(results_folder(store, study))
    steps = list((tmp_path / "runs" / "steps").iterdir())
    asked = refeed("gc", folder=tmp_path)
    assert asked.returncode == 0, asked.stderr
    assert "by 1 study (mine)" in asked.stdout
    assert "Nothing was removed. To do it, type: refeed gc --yes" in asked.stdout
    assert len(list((tmp_path / "runs" / "steps").iterdir())) == len(steps)
    told = json.loads(refeed("gc", "--json", folder=tmp_path).stdout)
    done = refeed("gc", "--yes", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    free = sum(kind["count"] for kind in told["free"].values())
    assert len(list((tmp_path / "runs" / "steps").iterdir())) == len(steps) - free < len(steps)
    assert "There is nothing to free." in refeed("gc", folder=tmp_path).stdout
    missing = refeed("gc", "--workspace", "nowhere", folder=tmp_path)
    assert missing.returncode == 2
    assert "is not a refeed workspace" in missing.stderr
    assert not (tmp_path / "nowhere").exists()

"""A workspace at a URL, on the command line: which verbs work there, and what the others say."""

import json
import shutil

import pytest
from test_cli import SMALL, refeed

from object_stores import new_url, s3_server
from refeed.workspace.objects import ObjectStore


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A workspace with a study in it, and the machine that did it gone."""
    folder = tmp_path_factory.mktemp("first")
    with s3_server(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFEED_CACHE", str(folder / "cache"))
        found = new_url("s3", folder)
        done = refeed("run", "linear-regression", *SMALL, "--workspace", found, folder=folder)
        assert (done.returncode, done.stderr) == (0, "")
        shutil.rmtree(folder)
        folder.mkdir()
        yield found


def test_another_machine_shows_plans_and_reports_what_was_run(url, tmp_path):
    name = ObjectStore(url).names("studies")[0].split("/")[1]
    rows = json.loads(refeed("show", name, "--json", "--workspace", url, folder=tmp_path).stdout)
    assert {row["policy"] for row in rows} == {"replace", "accumulate"}
    plan = json.loads(refeed("plan", "linear-regression", *SMALL, "--json", "--workspace", url, folder=tmp_path).stdout)
    assert [line["todo"] for line in plan["steps"]] == [0]
    store = ObjectStore(url)
    page = f"studies/{name}/report.html"
    before = store.read(page)
    store.remove([page])
    done = refeed("report", name, "--workspace", url, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert store.read(page)[:200] == before[:200]
    assert not list(tmp_path.iterdir())


def test_an_export_brings_what_it_needs(url, tmp_path):
    done = refeed("export", "linear-regression", *SMALL, "--policy", "replace", "--to", "data", "--workspace", url, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "data" / "data").glob("*.parquet"))


@pytest.mark.parametrize("verb", ["gc", "explain"])
def test_what_works_on_folders_alone_says_so(url, tmp_path, verb):
    done = refeed(verb, "--workspace", url, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"UserError: refeed {verb} works on a folder of this machine, and {url} is none.\n  With a URL work:"
    )
    assert not list(tmp_path.iterdir())


def test_a_bucket_that_is_not_there_is_one_error(url, tmp_path):
    done = refeed("run", "linear-regression", *SMALL, "--workspace", "s3://nowhere-at-all/w", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("WorkspaceError: cannot work with s3://nowhere-at-all/w: ")
    assert "Traceback" not in done.stderr

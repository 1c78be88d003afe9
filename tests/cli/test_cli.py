"""The command line as a user meets it: output, exit codes, one clear error."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

REFEED = [sys.executable, "-c", "from refeed.cli import main; main()"]
SMALL = ["--set", "seeds=2", "--set", "generations=2", "--set", 'grid={"source.rows"=[50]}']


def refeed(*arguments, folder):
    return subprocess.run([*REFEED, *arguments], capture_output=True, text=True, cwd=folder, check=False)


def test_run_prints_a_table_and_says_where_the_report_lies(tmp_path):
    done = refeed("run", "linear-regression", *SMALL, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "accumulate" in done.stdout
    assert "theory" in done.stdout
    page = tmp_path / done.stdout.rpartition("Report: ")[2].strip()
    assert page.name == "report.html"
    assert page.exists()
    assert done.stderr == ""

    shown = refeed("show", folder=tmp_path)
    name = shown.stdout.split("\t")[0]
    assert refeed("show", name, folder=tmp_path).stdout.strip()[:40] == done.stdout.strip()[:40]
    rows = json.loads(refeed("show", name, "--json", folder=tmp_path).stdout)
    assert {row["policy"] for row in rows} == {"replace", "accumulate"}
    page.unlink()
    assert refeed("report", name, folder=tmp_path).returncode == 0
    assert page.exists()


def test_plan_says_what_is_done_and_runs_nothing(tmp_path):
    before = json.loads(refeed("plan", "linear-regression", *SMALL, "--json", folder=tmp_path).stdout)
    assert [line["todo"] for line in before["steps"]] == [6]  # two seeds: generation 1 once, generation 2 by policy
    assert not list((tmp_path / "runs" / "records").iterdir())
    refeed("run", "linear-regression", *SMALL, folder=tmp_path)
    after = json.loads(refeed("plan", "linear-regression", *SMALL, "--json", folder=tmp_path).stdout)
    assert [line["todo"] for line in after["steps"]] == [0]
    assert "Everything is done" in refeed("plan", "linear-regression", *SMALL, folder=tmp_path).stdout
    longer = json.loads(refeed("plan", "linear-regression", *SMALL[:2], *SMALL[4:], "--json", folder=tmp_path).stdout)
    assert 0 < longer["steps"][0]["todo"] < longer["steps"][0]["steps"]


def test_run_as_json(tmp_path):
    done = json.loads(refeed("run", "linear-regression", *SMALL, "--json", folder=tmp_path).stdout)
    assert len(done["rows"]) == 2
    assert done["run"]["steps"]["measure"]["run"] == 6


def test_studies_lists_the_shipped_ones(tmp_path):
    listed = json.loads(refeed("studies", "--json", folder=tmp_path).stdout)
    assert {"demo", "linear-regression", "language"} <= set(listed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "linear-regresion"), "did you mean 'linear-regression'?"),
        (("run", "linear-regression", "--set", "source.row=3"), "has no option 'row'"),
        (("run", "language", "--set", "source.path=nowhere.txt"), "nowhere.txt"),
        (("run", "linear-regression", "--workspace", "file.txt"), "is a file, not a folder"),
        (("show", "demo"), "has no results of 'demo'"),
        (("report", "demo"), "has no results of 'demo'"),
        (("run", "linear-regression", "--scale", "huge"), "huge"),
        (("run", "demo", "--scale", "paper"), "this study has no sizes for --scale paper"),
        (("run", "demo", "--set", "cases.langage.source.rows=10"), "there is no case 'langage'; did you mean 'language'?"),
        (("run", "demo", "--engine", "inline", "--workers", "3"), "--workers 3 would be ignored"),
        (("run", "demo", "--engine", "proces"), "engine 'proces' is not known; did you mean 'process'?"),
        (("run", "demo", "--engine", "process", "--set", "process.wrkers=3"), "has no option 'wrkers'; did you mean 'workers'?"),
        (("run", "demo", "--engine", "inline", "--set", "process.workers=3"), "for the engine process, but the engine is inline"),
        (("run", "demo", "--set", "resources.fit.gpus=64"), "resources.fit asks for 64 GPUs, but this machine has"),
        (("run", "demo", "--set", "resources.fir.cpus=2"), "resources are of steps, and 'fir' is none"),
        (("run", "demo", "--workers", "2", "--set", "resources.fit.gpus=1"), "which the engine process does not hand out"),
        (("run", "linear-regression", "--set", "source.noise=nan"), "must be finite"),
        (("run", "linear-regression", "--set", "seeds=[99999999999999999999]"), "seeds must be below 2^63"),
        (("run", "linear-regression", "--set", "policies=[3]"), "policies must be a list of names or tables"),
        (("run", "linear-regression", "--set", "controls=['real']"), "control 'real' is not known; did you mean 'real-only'?"),
        (("run", "linear-regression", "--set", "controls=['matched-steps']"), "LeastSquares of case"),
        (("run", "linear-regression", "--set", "start=previous"), "needs a learner that can go on from a model"),
        (("run", "linear-regression", "--set", "min_real_share=2"), "min_real_share must be a fraction"),
        (("run", "linear-regression", "--workspace", "file.txt/x"), "cannot be a folder"),
        (("show", "--workspace", "nowhere"), "nothing was run"),
    ],
)
def test_wrong_input_is_one_clear_error(tmp_path, arguments, message):
    (tmp_path / "file.txt").write_text("x")
    done = refeed(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_stops_with_130_and_the_run_can_be_resumed(tmp_path, workers):
    command = [*REFEED, "run", "linear-regression", "--set", "seeds=120", "--workers", workers]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    records = tmp_path / "runs" / "records"
    deadline = time.monotonic() + 60
    while not (records.exists() and len(list(records.iterdir())) > 3) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert "run the same command again to go on" in stderr
    assert "Traceback" not in stderr
    kept = json.loads(refeed("plan", "linear-regression", "--set", "seeds=120", "--json", folder=tmp_path).stdout)["steps"]
    assert 0 < sum(line["todo"] for line in kept) < sum(line["steps"] for line in kept)


def test_a_missing_extra_names_the_install_line(monkeypatch):
    from refeed import catalogue
    from refeed.core.errors import MissingExtra

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'refeed\[language\]'"):
        catalogue.family("language")


def test_policies_lists_everything_a_study_file_may_say(tmp_path):
    from refeed import catalogue

    listed = json.loads(refeed("policies", "--json", folder=tmp_path).stdout)
    assert set(listed["alter"]) == set(catalogue.ALTERATIONS)
    assert set(listed["policies"]) >= set(catalogue.POLICIES)
    shown = refeed("policies", "reservoir", folder=tmp_path).stdout
    assert "reservoir (policies)" in shown
    assert "reservoir (keep)" in shown
    wrong = refeed("policies", "reservoire", folder=tmp_path)
    assert wrong.returncode == 2
    assert "did you mean 'reservoir'?" in wrong.stderr

"""What a plan takes: parameters and operations of the paper's models, schedules, storage by policy, and a page that is current."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from refeed.core.errors import StudyError
from refeed.studies import load_study, run
from refeed.studies.costs import critical_path, makespan, storage, task_costs, task_seconds, widths
from refeed.studies.tasks import Task, plan
from refeed.workspace import Workspace

ROOT = Path(__file__).parents[2]


def tasks(**needs):
    return {key: Task(key=key, kind="fit", arms=(0,), after=frozenset(after.split())) for key, after in needs.items()}


def test_stories_of_the_grammar_are_planned_by_their_expected_length(tmp_path):
    pytest.importorskip("transformers")
    study = load_study("language-long", overrides=["seeds=1", "generations=1", "policies=['replace']", "metrics=['cross_entropy']"])
    todo, source = plan(study, Workspace(tmp_path / "w")), study.cases[0].source
    found = {todo.pending[key].kind: cost for key, cost in task_costs(todo).items()}
    assert source.row_tokens == pytest.approx(37.43, abs=0.005)
    assert found["fit"].tokens == round(3 * 800 * source.row_tokens)
    assert found["measure"].tokens == round(1000 * source.row_tokens)
    assert found["fit"].flops > 6 * found["fit"].tokens * 96 * source.vocabulary


def test_schedules_of_chains_and_of_independent_steps():
    chain, seconds = tasks(a="", b="a", c="b"), {"a": 1.0, "b": 2.0, "c": 3.0}
    assert critical_path(chain, seconds) == (6, ["a", "b", "c"])
    assert [makespan(chain, seconds, devices=devices) for devices in (1, 2, 64)] == [6, 6, 6]
    apart = tasks(a="", b="", c="", d="", e="")
    assert [makespan(apart, dict.fromkeys(apart, 2.0), devices=devices) for devices in (1, 2, 4, 5)] == [10, 6, 4, 2]
    diamond = tasks(a="", b="a", c="a", d="b c")
    assert makespan(diamond, dict.fromkeys(diamond, 1.0), devices=2) == 3
    assert critical_path(diamond, {"a": 1.0, "b": 1.0, "c": 2.0, "d": 1.0}) == (4, ["a", "c", "d"])
    assert critical_path({}, {}) == (0, [])
    assert makespan(diamond, dict.fromkeys(diamond, 1.0), devices=1) == 4
    done = {key: task for key, task in diamond.items() if key != "a"}  # what is not among them is done
    assert makespan(done, dict.fromkeys(done, 1.0), devices=2) == 2


def test_a_task_spread_over_devices_takes_them_together():
    apart = tasks(a="", b="", c="")
    seconds, wide = {"a": 4.0, "b": 2.0, "c": 1.0}, {"a": 4, "b": 2}
    assert critical_path(tasks(a="", b="a"), seconds, wide)[0] == 2  # 4/4 + 2/2
    assert makespan(apart, seconds, devices=4, widths=wide) == 2  # a on all four, then b on two beside c
    assert makespan(apart, seconds, devices=7, widths=wide) == 1
    first = tasks(x="", a="", c="")  # x leaves too few devices for a, and c passes it
    assert makespan(first, {"x": 3.0, "a": 8.0, "c": 1.0}, devices=4, widths={"a": 4}) == 3 + 2


def test_fits_are_planned_on_as_many_devices_as_they_ask_for(tmp_path):
    pytest.importorskip("transformers")
    grid = ["seeds=1", "generations=2", 'policies=["replace"]']
    one = plan(load_study("scale", overrides=grid), Workspace(tmp_path / "w"))
    two = plan(load_study("scale", overrides=[*grid, "resources.fit.devices=2"]), Workspace(tmp_path / "w"))
    assert list(one.pending) == list(two.pending)  # no part of any identity
    assert set(widths(two).values()) == {2}
    assert set(widths(two)) == {key for key, task in two.pending.items() if task.kind == "fit"}
    assert set(widths(two, devices=1).values()) == {1}
    seconds = task_seconds(two, Workspace(tmp_path / "w"), task_costs(two), flops=1e14, rates={})
    assert seconds == task_seconds(one, Workspace(tmp_path / "w"), task_costs(one), flops=1e14, rates={})
    fits = sum(seconds[key] for key in widths(two))
    rest = sum(seconds.values()) - fits
    assert makespan(two.pending, seconds, devices=1, widths=widths(two, devices=1)) == pytest.approx(fits + rest)
    assert fits / 2 < makespan(two.pending, seconds, devices=2, widths=widths(two)) < fits / 2 + rest


def test_the_papers_models_have_its_parameters_and_the_operations_of_their_shapes(tmp_path):
    pytest.importorskip("transformers")
    study = load_study("scale", overrides=["seeds=1", "generations=2"])
    todo = plan(study, Workspace(tmp_path / "w"))
    costs = task_costs(todo)
    first = {}
    for key, task in todo.pending.items():
        first.setdefault((study.arms[task.arms[0]].case.name, task.kind), costs[key])
    parameters = {case: cost.parameters for (case, kind), cost in first.items() if kind == "fit"}
    assert parameters["gpt2-9m"] == 8_890_880
    assert parameters["llama-12m"] == 12_488_960
    assert parameters["llama-42m"] == 41_755_136
    assert parameters["llama-126m"] == 125_553_408
    # By hand, of Llama 12M: a token is not multiplied by the table of 8000 x 256 that it is looked up in.
    tokens = round(2_119_719 * (470e6 / 2_119_719))
    weights, attention = 12_488_960 - 8000 * 256, 8 * 256 * (470e6 / 2_119_719)
    fit, sample = first["llama-12m", "fit"], first["llama-12m", "sample"]
    assert (fit.tokens, fit.bytes) == (tokens, 4 * 12_488_960)
    assert fit.flops == pytest.approx(6 * tokens * (weights + attention))
    assert sample.flops == pytest.approx(2 * tokens * (weights + attention))
    assert sample.bytes == 2 * tokens


def test_storage_by_policy():
    pytest.importorskip("transformers")
    names = 'policies=["replace", "accumulate", "reservoir"]'
    study = load_study("scale", overrides=["source.rows=100", "source.row_tokens=10", "generations=4", names])
    lines = {line.policy: line for line in storage(study) if line.case == "llama-12m"}
    assert {policy: line.rows_made for policy, line in lines.items()} == dict.fromkeys(lines, 500)
    assert {policy: line.rows_kept for policy, line in lines.items()} == {"replace": 100, "accumulate": 500, "reservoir": 100}
    assert lines["accumulate"].bytes_kept == 500 * 10 * 2
    assert lines["accumulate"].model_bytes == 4 * 4 * 12_488_960


def refeed(*arguments, folder):
    command = [sys.executable, "-c", "from refeed.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


def test_an_outline_is_planned_and_not_run(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(StudyError, match="the source 'outline' is the size of a text and no text"):
        run(load_study("scale"), workspace=tmp_path / "w")
    graph = json.loads(
        refeed("plan", "scale", "--engine", "ray", "--set", "resources.fit.gpus=1", "--json", folder=tmp_path).stdout
    )
    stage = {"stage": "002-fit", "steps": 20, "asks": "1 processor and 1 GPU", "after": "all of 001-draw"}
    assert graph["outlook"]["graph"][1] == stage
    assert graph["outlook"]["chain"]["steps"] == {"draw": 1, "fit": 10, "sample": 10}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--devices", "two"), "--devices takes numbers of devices, not 'two'"),
        (("--devices", "1,0"), "--devices takes numbers of devices, not '1,0'"),
        (("--flops", "0"), "--flops takes a number above zero, not 0"),
        (("--flops", "nan"), "--flops takes a number above zero, not nan"),
        (("--flops", "1e12", "--price", "-3"), "--price takes a number above zero, not -3"),
    ],
)
def test_a_plan_refuses_what_is_no_number_of_devices_or_rate(tmp_path, options, error):
    wrong = refeed("plan", "linear-regression", *options, folder=tmp_path)
    assert (wrong.returncode, wrong.stdout, len(wrong.stderr.splitlines())) == (2, "", 2)
    assert error in wrong.stderr


def test_a_plan_says_what_would_tell_the_time_and_that_nothing_is_left(tmp_path):
    small = ("linear-regression", "--set", "seeds=1", "--set", "generations=2", "--set", "grid={}")
    unknown = refeed("plan", *small, "--engine", "ray", folder=tmp_path).stdout
    assert "run some steps here first.\nThe longest chain of steps is of" in unknown  # no rate tells what nobody counts
    refeed("run", *small, folder=tmp_path)
    done = refeed("plan", *small, "--engine", "ray", folder=tmp_path).stdout
    assert "Everything is done." in done
    assert "not known" not in done


def test_times_come_from_steps_that_were_done(tmp_path, regression_study):
    """Of a family that says nothing of its costs."""
    store = Workspace(tmp_path / "w")
    run(regression_study(generations=2), workspace=store)
    longer = plan(regression_study(generations=4), store)
    seconds = task_seconds(longer, store, task_costs(longer), flops=None, rates={})
    assert sum(seconds.values()) > 0
    other = plan(replace(regression_study(generations=4), cases=regression_study(rows=31).cases), store)
    assert task_seconds(other, store, task_costs(other), flops=1e12, rates={}) is None


def test_calibration_measures_every_kind_that_computes():
    pytest.importorskip("transformers")
    from refeed.families.language.calibration import calibrate

    overrides = ["source.vocabulary=50", "source.row_tokens=8", "learner.width=32", "learner.layers=1", "learner.context=16"]
    case = load_study("scale", overrides=[*overrides, "learner.heads=2", "learner.precision=float32"]).cases[1]
    rates = calibrate(case, seconds=0.1)
    assert set(rates) == {"fit", "sample", "measure"}
    assert all(1e5 < rate < 1e13 for rate in rates.values())


def test_the_page_on_full_size_is_what_the_planner_prints():
    pytest.importorskip("transformers")
    spec = importlib.util.spec_from_file_location("scale", ROOT / "benchmarks" / "scale.py")
    scale = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scale)
    page = (ROOT / "docs" / "scale.md").read_text()
    assert scale.output(scale.LINEAGES) in page, "type: python benchmarks/scale.py > docs/scale.md"
    assert all(command in page for command in scale.COMMANDS.values())

"""Engines perform the same tasks with the same bits, and an end with a name is a result."""

import traceback
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from refeed.core.errors import StudyError
from refeed.core.protocols import Quantity
from refeed.studies import run
from refeed.studies.collect import raised
from refeed.studies.engines import Processes
from refeed.studies.resources import Resources
from refeed.studies.tasks import plan
from refeed.workspace import Workspace
from toy import Diverging, kept_study


def outcomes(results):
    return {(row["policy"], row["outcome"], row["generation"]) for row in results.outcomes.to_pylist()}


def test_processes_and_inline_give_equal_bits(tmp_path):
    study = kept_study(names=("replace", "accumulate", "replace-multiple"))
    events = []
    parallel = run(study, workspace=tmp_path / "a", engine=Processes(workers=2), listener=events.append)
    assert parallel.scores.equals(run(study, workspace=tmp_path / "b").scores)
    assert sum(event.kind == "ended" for event in events) == sum(event.kind == "started" for event in events) > 0


@pytest.mark.parametrize("engine", [None, Processes(workers=2)])
def test_a_diverged_lineage_is_a_result(tmp_path, engine):
    study = kept_study(seeds=(0,), generations=4, learner=Diverging(), names=("replace",))
    options = {} if engine is None else {"engine": engine}
    results = run(study, workspace=tmp_path / "w", **options)
    assert outcomes(results) == {("replace", "diverged", 2)}
    assert results.scores.num_rows == 2
    again = run(study, workspace=tmp_path / "w")
    assert outcomes(again) == outcomes(results)
    assert again.run["steps"]["fit"]["run"] <= 2  # the diverged fit is remembered; what stands behind it never ran


@pytest.mark.parametrize("engine", [None, Processes(workers=2)])
def test_a_defect_is_recorded_and_the_other_lineages_go_on(tmp_path, engine):
    study = kept_study(seeds=(0,), generations=4, learner=Diverging(how="raise"), names=("replace", "replace-multiple"))
    options = {} if engine is None else {"engine": engine}
    results = run(study, workspace=tmp_path / "w", **options)
    assert outcomes(results) == {("replace", "failed", 2), ("replace-multiple", "failed", 2)}
    assert "ZeroDivisionError: a defect of a plug-in" in results.run["errors"][0]["traceback"]
    assert {row["sentence"] for row in results.outcomes.to_pylist()} == {"ZeroDivisionError: a defect of a plug-in"}


def test_what_failed_is_said_with_its_hint_on_one_line():
    try:
        raise StudyError("images of 30 x 30 cannot be halved", hint="Choose another size.")
    except StudyError:
        assert raised(traceback.format_exc()) == "StudyError: images of 30 x 30 cannot be halved. Choose another size"


# A pool whose worker dies may lose its own manager thread to a race in CPython 3.11 (concurrent/futures/process.py:575).
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_step_that_kills_its_worker_is_named_and_the_others_go_on(tmp_path):
    study = kept_study(seeds=(0, 1), generations=3, learner=Diverging(how="killed"), names=("replace", "accumulate"))
    results = run(study, workspace=tmp_path / "w", engine=Processes(workers=2))
    assert outcomes(results) == {("replace", "failed", 2), ("accumulate", "failed", 2)}
    assert all("the worker process died 3 times, alone with this step" in error["traceback"] for error in results.run["errors"])


def test_one_bad_lineage_does_not_take_the_others_with_it(tmp_path, regression_study):
    study = regression_study(seeds=tuple(range(30)), generations=2)
    case = replace(study.cases[0], metrics=(FailsForSome(),))
    results = run(replace(study, cases=(case,)), workspace=tmp_path / "w")
    ends = [(row["seed"], row["outcome"]) for row in results.outcomes.to_pylist()]
    assert {seed for seed, outcome in ends if outcome == "failed"} == {7}
    assert sum(outcome == "completed" for _, outcome in ends) == 58


def test_cases_that_share_models_but_not_metrics_are_both_measured(tmp_path, regression_study):
    study = regression_study(seeds=(0, 1), generations=2)
    other = replace(study.cases[0], name="other", metrics=(FailsForSome(),))
    results = run(replace(study, cases=(study.cases[0], other)), workspace=tmp_path / "w")
    assert {row["outcome"] for row in results.outcomes.to_pylist()} == {"completed"}
    assert set(results.scores["case"].to_pylist()) == {"regression", "other"}


def test_after_an_outcome_nothing_is_left_to_do(tmp_path):
    study = kept_study(seeds=(0,), generations=5, learner=Diverging(), names=("replace",))
    run(study, workspace=tmp_path / "w")
    assert not plan(study, Workspace(tmp_path / "w")).pending


def test_a_guard_ends_a_lineage_before_it_trains_on_too_little_real_data(tmp_path):
    study = replace(kept_study(seeds=(0,), generations=5, names=("replace", "accumulate")), min_real_share=0.4)
    results = run(study, workspace=tmp_path / "w")
    assert outcomes(results) == {("replace", "low real share", 1), ("accumulate", "low real share", 2)}
    sentences = {row["policy"]: row["sentence"] for row in results.outcomes.to_pylist()}
    assert "generation 3 would train on 33.3% real rows, below min_real_share = 40.0%" in sentences["accumulate"]
    assert "it needs 10 more real rows, or at most 45 synthetic rows instead of 60" in sentences["accumulate"]


def test_the_guard_may_warn_instead(tmp_path):
    study = replace(kept_study(seeds=(0,), names=("accumulate",)), min_real_share=0.4, on_low_real_share="warn")
    (row,) = run(study, workspace=tmp_path / "w").outcomes.to_pylist()
    assert (row["outcome"], row["generation"]) == ("completed", 3)
    assert "below min_real_share = 40.0%" in row["sentence"]


@dataclass(frozen=True, kw_only=True)
class FailsForSome:
    """The excess risk, but lineage 7 raises."""

    name: ClassVar[str] = "fails_for_some"
    needs: ClassVar[frozenset[str]] = frozenset()
    quantities: ClassVar = (Quantity(name="fails_for_some", role="risk"),)

    def measure(self, model, *, world, samples, seed):
        if str(seed).startswith("7/"):
            raise ZeroDivisionError("seed 7")
        return {"fails_for_some": 1.0}


def test_what_steps_ask_of_the_machine_changes_no_identity(tmp_path):
    study = kept_study()
    asking = replace(study, resources={"fit": Resources(cpus=4)})
    assert asking.digest == study.digest
    assert [arm.turns[-1].model.digest for arm in asking.arms] == [arm.turns[-1].model.digest for arm in study.arms]
    with pytest.raises(StudyError, match=r"resources\.fit asks for 2 devices, but Slow of case 'toy' trains on one\."):
        replace(study, resources={"fit": Resources(devices=2)})
    with pytest.raises(StudyError, match=r"a fit can be spread over devices, but no sample step\."):
        replace(study, resources={"sample": Resources(devices=2)})
    with pytest.raises(StudyError, match=r"resources\.fit asks for 1000 GPUs, but this machine has"):
        run(replace(study, resources={"fit": Resources(gpus=1000)}), workspace=tmp_path / "w")
    assert not list((tmp_path / "w" / "steps").iterdir())
    found = run(study, workspace=tmp_path / "w").scores
    again = run(replace(study, resources={"fit": Resources(gpus=1000)}), workspace=tmp_path / "w")  # what is done asks for nothing
    assert again.scores.equals(found)

"""Engines perform the same tasks with the same bits, and an end with a name is a result."""

import pytest

from refeed.core.errors import StepFailed
from refeed.studies import run
from refeed.studies.engines import Processes
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


def test_a_worker_that_dies_is_tried_again_and_then_named(tmp_path):
    study = kept_study(seeds=(0,), generations=3, learner=Diverging(how="killed"), names=("replace",))
    with pytest.raises(StepFailed, match="a worker process died 3 times while doing the fit step"):
        run(study, workspace=tmp_path / "w", engine=Processes(workers=2))

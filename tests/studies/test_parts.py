"""A sample drawn in parts: the same bytes for any number of them, by any engine, through kills."""

import json
from dataclasses import replace

import pytest

from faulty import Keyed, divided_study, done, repeated
from refeed.core.errors import StudyError
from refeed.core.protocols import Cost, DivisibleSampler
from refeed.core.steps import Sample
from refeed.studies import run
from refeed.studies.costs import _cost, critical_path, makespan, task_seconds
from refeed.studies.engines import Processes
from refeed.studies.engines.arrays import arrays
from refeed.studies.estimate import estimate
from refeed.studies.resources import Resources
from refeed.studies.tasks import perform, plan
from refeed.workspace import Workspace
from refeed.workspace.garbage import find
from toy import kept_study


def kept(workspace):
    """Every file that steps left, and what the manifests say but for times."""
    found = {}
    for path in sorted((workspace / "steps").rglob("*")):
        if path.name == "manifest.json":
            manifest = json.loads(path.read_bytes())
            found[str(path.relative_to(workspace))] = {k: v for k, v in manifest.items() if k not in ("seconds", "made", "self")}
        elif path.is_file():
            found[str(path.relative_to(workspace))] = path.read_bytes()
    return found


def ran(folder, *, engine=None, **options):
    """The study in a workspace of its own: what it kept, its scores, and what was begun how often."""
    study = divided_study(folder / "log", **options)
    found = run(study, workspace=folder / "w", **({"engine": engine} if engine else {}))
    assert not list((folder / "w" / "partial").iterdir())
    return kept(folder / "w"), found, done(folder / "log")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return ran(tmp_path_factory.mktemp("whole"), parts=1)


@pytest.mark.parametrize("parts", [2, 3])
def test_any_number_of_parts_gives_the_bytes_of_none(whole, tmp_path, parts):
    files, found, log = ran(tmp_path, parts=parts)
    assert files == whole[0]
    assert found.scores.equals(whole[1].scores)
    samples = found.run["steps"]["sample"]["total"]
    assert found.run["steps"]["part"] == found.run["steps"]["part"] | {"total": parts * samples, "run": parts * samples}
    kinds = [step.split()[0] for step in log.elements()]
    assert (kinds.count("part"), kinds.count("sample")) == (parts * samples, 0)


def test_more_parts_than_rows_give_the_same_bytes(whole, tmp_path):
    files, _, _ = ran(tmp_path, parts=31, seeds=1, generations=1)
    assert files == {name: whole[0][name] for name in files}
    assert sum(name.endswith("rows.parquet") for name in files) == 1


def test_parts_in_processes_give_the_same_bytes_and_each_is_drawn_once(whole, tmp_path):
    files, found, _ = ran(tmp_path, parts=3, engine=Processes(workers=2))
    assert files == whole[0]
    assert found.scores.equals(whole[1].scores)
    assert not repeated(tmp_path / "log")


def test_a_killed_part_is_drawn_again_and_no_other(whole, tmp_path):
    files, _, _ = ran(tmp_path, parts=3, kill=("part",), engine=Processes(workers=1))
    assert files == whole[0]
    assert (tmp_path / "log" / "killed-part").exists()
    assert {(step.split()[0], times) for step, times in repeated(tmp_path / "log").items()} == {("part", 2)}
    assert len(repeated(tmp_path / "log")) == 1


def test_an_interrupted_sample_goes_on_from_its_finished_parts(whole, tmp_path):
    study = divided_study(tmp_path / "log", parts=3)

    def interrupt(event):
        if event.kind == "ended" and event.task.kind == "part" and event.task.number == 3:  # the second, after draw and fit
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(study, workspace=tmp_path / "w", listener=interrupt)
    store = Workspace(tmp_path / "w")
    assert len(list((tmp_path / "w" / "partial").iterdir())) == 2
    assert not [item for item in find(store).free if item.kind == "interrupted"]
    assert plan(study, store).counts["part"] == (plan(study, store).counts["sample"][0] * 3, plan(study, store).counts["part"][1])
    assert plan(study, store).counts["part"][0] - plan(study, store).counts["part"][1] == 2
    run(study, workspace=tmp_path / "w")
    assert kept(tmp_path / "w") == whole[0]
    assert not repeated(tmp_path / "log")


def test_a_part_of_what_another_put_together_meanwhile_is_not_drawn_again(whole, tmp_path):
    study = divided_study(tmp_path / "log", parts=3)
    store = Workspace(tmp_path / "w")
    planned = plan(study, store)
    run(study, workspace=tmp_path / "w")
    assert not any(perform(task, study, store).failed for task in planned.pending.values() if task.kind == "part")
    assert not repeated(tmp_path / "log")
    assert not list((tmp_path / "w" / "partial").iterdir())
    assert kept(tmp_path / "w") == whole[0]


def test_parts_of_another_number_are_left_and_swept_away(whole, tmp_path):
    def interrupt(event):
        if event.kind == "ended" and event.task.kind == "part":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(divided_study(tmp_path / "log", parts=3), workspace=tmp_path / "w", listener=interrupt)
    assert len(list((tmp_path / "w" / "partial").iterdir())) == 1
    assert ran(tmp_path, parts=2)[0] == whole[0]


def test_a_damaged_part_is_drawn_again(whole, tmp_path):
    study = divided_study(tmp_path / "log", parts=2)

    def damage(event):
        if event.kind == "ended" and event.task.kind == "part" and not (tmp_path / "damaged").exists():
            (path,) = (tmp_path / "w" / "partial").glob("*/rows.parquet")
            path.write_bytes(path.read_bytes()[:-1] + b"?")
            (tmp_path / "damaged").touch()
            store._verified.clear()
            store.memory._loose.clear()

    store = Workspace(tmp_path / "w")
    with pytest.warns(UserWarning, match="made again"):
        run(study, workspace=store, listener=damage)
    assert kept(tmp_path / "w") == whole[0]
    assert [times for step, times in repeated(tmp_path / "log").items()] == [2]


def test_where_a_part_cannot_be_had_all_rows_are_drawn_at_once(whole, tmp_path):
    files, _, log = ran(tmp_path, parts=2, missing="unable")
    assert files == whole[0]
    assert sum(step.startswith("sample") for step in log.elements()) == sum(step.startswith("part") for step in log.elements()) / 2


def test_what_a_sampler_stops_for_is_said_of_all_rows(tmp_path):
    found = {}
    for parts in (1, 2):
        study = divided_study(tmp_path / f"log{parts}", parts=parts, missing="stopped", seeds=1)
        found[parts] = run(study, workspace=tmp_path / f"w{parts}").outcomes
    assert found[1].equals(found[2])
    assert set(found[1]["sentence"].to_pylist()) == {"generation 1: 30 of 30 rows"}


def test_the_plan_knows_that_parts_run_side_by_side(tmp_path):
    run(divided_study(tmp_path / "log", parts=3), workspace=tmp_path / "w")  # seconds of a sample, from its parts
    store = Workspace(tmp_path / "w")
    seconds = {}
    for parts in (1, 4):
        longer = divided_study(tmp_path / "log", parts=parts, generations=3, seeds=1)
        todo = plan(longer, store)
        times = task_seconds(todo, store, dict.fromkeys(todo.pending), flops=None, rates={})
        times = {key: second if todo.pending[key].kind in ("part", "sample") else 0.0 for key, second in times.items()}
        seconds[parts] = critical_path(todo.pending, times)[0], makespan(todo.pending, times, devices=8), sum(times.values())
        lines = {line["step"]: line for line in estimate(todo, store)}
        assert lines["sample"]["seconds"] is not None
        assert lines["sample"]["rows"] == (0 if parts > 1 else 60)
    one, four = seconds[1], seconds[4]
    assert one[0] > 0
    assert four[0] == pytest.approx(one[0] * 8 / 30)  # a quarter of 30 rows is 8 of them
    assert four[1] == pytest.approx(four[0])
    assert four[2] == pytest.approx(one[2] * 32 / 30)


def test_a_part_costs_its_share_and_the_whole_its_bytes(tmp_path):
    arm = divided_study(tmp_path / "log", parts=3).arms[0]
    whole = arm.turns[0].sampled.step
    assert isinstance(whole, Sample)
    costs = [_cost(step, lambda step: Cost(flops=30.0, tokens=60, bytes=5, parameters=7)) for step in (*whole.parts, whole)]
    assert costs[:3] == [Cost(flops=10.0, tokens=20, parameters=7)] * 3
    assert costs[3] == Cost(bytes=5, parameters=7)


def test_arrays_of_parts_come_before_their_samples(tmp_path):
    todo = plan(divided_study(tmp_path / "log", parts=3, generations=1), Workspace(tmp_path / "w"))
    stages = arrays(todo.pending)
    titles = [stage.title for stage in stages]
    part, sample = titles.index("003-part"), titles.index("004-sample")
    assert len(stages[part].tasks) == 3 * len(stages[sample].tasks)
    assert stages[sample].after == {part: "afterany"}


def test_what_cannot_be_divided_is_one_error(tmp_path):
    with pytest.raises(StudyError, match=r"a fit step cannot be divided") as caught:
        replace(divided_study(tmp_path / "log", parts=1), resources={"fit": Resources(parts=2)})
    assert caught.value.at == "resources.fit.parts"
    with pytest.raises(StudyError, match=r"the rows of Relabel cannot be drawn in parts"):
        replace(kept_study(), resources={"sample": Resources(parts=2)})
    with pytest.raises(StudyError, match=r"at least one part, not parts = 0"):
        Resources(parts=0)


def test_parts_are_no_part_of_a_digest(tmp_path):
    one, three = (divided_study(tmp_path / "log", parts=parts) for parts in (1, 3))
    assert isinstance(one.cases[0].sampler, Keyed | DivisibleSampler)
    assert one.digest == three.digest
    assert [turn.sampled.digest for turn in one.arms[0].turns] == [turn.sampled.digest for turn in three.arms[0].turns]

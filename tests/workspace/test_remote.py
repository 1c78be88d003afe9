"""A workspace in an object store: the results of a folder, each step once, whoever dies at whatever moment."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from faulty import divided_study, done, faulty_study, repeated
from object_stores import SERVERS, new_url
from refeed.core.errors import EngineError, StudyError
from refeed.studies import run
from refeed.studies.engines import Processes
from refeed.studies.engines.slurm import Slurm
from refeed.studies.estimate import estimate
from refeed.studies.export import export
from refeed.studies.tasks import perform, plan
from refeed.workspace import DamagedWarning, claims, open_workspace
from refeed.workspace.objects import ObjectStore
from toy import Slow, kept_study

pytest.importorskip("fsspec")
TESTS = str(Path(__file__).parent.parent)


@pytest.fixture(scope="module")
def server():
    with SERVERS["s3"]():
        yield


@pytest.fixture(scope="module")
def google():
    with SERVERS["gs"]():
        yield


@pytest.fixture(params=["s3", "gs", "file"])
def url(request, tmp_path):
    if name := {"s3": "server", "gs": "google"}.get(request.param):
        request.getfixturevalue(name)
    return new_url(request.param, tmp_path)


@pytest.fixture
def s3(request, tmp_path):
    """A bucket of S3; with REFEED_TEST_STORE=gs one of Google's, so that all of this can be seen there too."""
    kind = os.environ.get("REFEED_TEST_STORE", "s3")
    request.getfixturevalue({"s3": "server", "gs": "google"}[kind])
    return new_url(kind, tmp_path)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Another machine, in that it has another cache."""

    def become(name):
        monkeypatch.setenv("REFEED_CACHE", str(tmp_path / f"cache-{name}"))

    become("a")
    return become


def counts(found):
    return {kind: steps["run"] for kind, steps in found.run["steps"].items()}


def test_the_results_are_those_of_a_folder_and_another_machine_does_nothing_again(url, tmp_path, machine):
    study = faulty_study(tmp_path / "log", seeds=1, generations=2)
    local = run(faulty_study(tmp_path / "local-log", seeds=1, generations=2), workspace=tmp_path / "w")
    first = run(study, workspace=url)
    assert first.scores.equals(local.scores)
    assert first.ledger.equals(local.ledger)
    before = done(tmp_path / "log")
    assert before.keys() == done(tmp_path / "local-log").keys()
    machine("b")
    again = run(study, workspace=url)
    assert done(tmp_path / "log") == before
    assert set(counts(again).values()) == {0}
    for name in ("scores", "ledger", "outcomes", "composition"):
        assert getattr(again, name).equals(getattr(first, name)), name
    names = ObjectStore(url).names("")
    assert {name.partition("/")[0] for name in names} == {"refeed.json", "manifests", "steps", "records"}


def test_a_study_goes_on_on_another_machine(s3, tmp_path, machine):
    url, study = s3, faulty_study(tmp_path / "log", seeds=1, generations=2)
    ended = []

    def interrupt(event):
        if event.kind == "ended":
            ended.append(event.task.key)
            if len(ended) == 6:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(study, workspace=url, listener=interrupt)
    machine("b")
    store = open_workspace(url)
    todo = plan(study, store)
    assert len(todo.tasks) - len(todo.pending) == 6
    assert all(line["seconds"] is not None for line in estimate(todo, store) if line["steps"] > line["todo"])
    found = run(study, workspace=store)
    assert not repeated(tmp_path / "log")
    machine("c")
    arm = study.arms[1]
    about = export(study, open_workspace(url), arm, arm.turns[1], tmp_path / "data")
    assert about["rows_by_generation"] == {0: 30, 1: 30}
    assert not repeated(tmp_path / "log")
    assert found.scores.equals(run(faulty_study(tmp_path / "l", seeds=1, generations=2), workspace=tmp_path / "w").scores)


def test_cheap_families_keep_their_numbers_there(s3, machine, regression_study):
    first = run(regression_study(), workspace=s3)
    machine("b")
    again = run(regression_study(), workspace=s3)
    assert again.scores.equals(first.scores)
    assert set(counts(again).values()) == {0}


def test_parts_of_samples_go_through_the_store(s3, tmp_path, machine):
    study = divided_study(tmp_path / "log", parts=3, seeds=1, generations=1)

    def interrupt(event):
        if event.kind == "ended" and event.task.kind == "part":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(study, workspace=s3, listener=interrupt)
    machine("c")
    late = open_workspace(s3)
    planned = plan(study, late)
    machine("b")
    found = run(study, workspace=s3)
    assert not any(perform(task, study, late).failed for task in planned.pending.values() if task.kind == "part")  # by now whole
    assert not repeated(tmp_path / "log")
    assert found.scores.equals(run(divided_study(tmp_path / "l", parts=1, seeds=1, generations=1), workspace=tmp_path / "w").scores)
    store = ObjectStore(s3)
    kinds = [json.loads(content)["manifest"]["kind"] for content in store.read_many(store.names("manifests")).values()]
    assert "part" not in kinds
    assert len({name.split("/")[1] for name in store.names("steps")}) == len(kinds)


def test_processes_share_it(s3, tmp_path, machine):
    study = faulty_study(tmp_path / "log", seeds=1, generations=2)
    found = run(study, workspace=s3, engine=Processes(workers=2))
    assert not repeated(tmp_path / "log")
    assert found.scores.equals(run(faulty_study(tmp_path / "l", seeds=1, generations=2), workspace=tmp_path / "w").scores)


OTHER = """
import os, sys, time
sys.path.insert(0, {tests!r})
os.environ["REFEED_CACHE"] = {cache!r}
from refeed.workspace import claims, files, remote, workspace
claims._machine = lambda: {machine!r}
claims.BEAT, claims.PATIENCE, claims.LOOK = 0.2, {patience}, 0.05
real, real_monotonic = time.time, time.monotonic
time.time, time.monotonic = (lambda: real() + {ahead}), (lambda: real_monotonic() + {ahead})
from faulty import faulty_study
from refeed.studies import run
{change}
run(faulty_study({log!r}, seeds={seeds}, generations=1, seconds={seconds}), workspace={url!r})
"""


def other_machine(tmp_path, url, *, name="other", change="", patience=60.0, ahead=0.0, seconds=0.05, seeds=1):
    """A process of another machine, whose clock is so many seconds `ahead`, that does the study."""
    places = {"tests": TESTS, "cache": str(tmp_path / f"cache-{name}"), "log": str(tmp_path / "log"), "url": url}
    code = OTHER.format(**places, machine=name, change=change, patience=patience, ahead=ahead, seconds=seconds, seeds=seeds)
    return subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONWARNINGS": "ignore"})


def scores_of_a_folder(tmp_path, seeds):
    return run(faulty_study(tmp_path / "l", seeds=seeds, generations=1), workspace=tmp_path / "w").scores


def test_two_machines_at_once_do_no_step_twice_whatever_their_clocks_say(s3, tmp_path, machine):
    year = 365 * 86400.0
    others = [other_machine(tmp_path, s3, name=name, ahead=ahead, seeds=3) for name, ahead in (("b", year), ("c", -year))]
    assert [process.wait(300) for process in others] == [0, 0]
    assert not repeated(tmp_path / "log")
    found = run(faulty_study(tmp_path / "log", seeds=3, generations=1), workspace=s3)
    assert set(counts(found).values()) == {0}
    assert found.scores.equals(scores_of_a_folder(tmp_path, 3))
    assert not ObjectStore(s3).names("claims")


KILLED = {
    "in a step": "",
    "half-way through an upload": """
upload = remote.ObjectStore.upload
def half(self, path, name):
    if name.endswith("model.npz") or "/model/" in name:
        self.write(name, path.read_bytes()[:10])
        os.kill(os.getpid(), 9)
    upload(self, path, name)
remote.ObjectStore.upload = half""",
    "before its manifest": """
create = remote.ObjectStore.create
def cut(self, name, content):
    if name.startswith("manifests/"):
        os.kill(os.getpid(), 9)
    return create(self, name, content)
remote.ObjectStore.create = cut""",
    "after its manifest": """
create = remote.ObjectStore.create
def cut(self, name, content):
    made = create(self, name, content)
    if name.startswith("manifests/"):
        os.kill(os.getpid(), 9)
    return made
remote.ObjectStore.create = cut""",
}


@pytest.mark.parametrize("moment", KILLED)
def test_a_machine_that_dies_costs_the_step_it_was_doing(s3, tmp_path, machine, monkeypatch, moment):
    monkeypatch.setattr(claims, "PATIENCE", 0.6)
    monkeypatch.setattr(claims, "LOOK", 0.05)
    other = other_machine(tmp_path, s3, change=KILLED[moment], seconds=60.0 if moment == "in a step" else 0.0)
    if moment == "in a step":
        while other.poll() is None and not (tmp_path / "log" / "log").exists():
            time.sleep(0.02)
        while other.poll() is None and not any(step.startswith("fit") for step in done(tmp_path / "log")):
            time.sleep(0.02)
        other.kill()
    assert other.wait(300) == -9
    store = ObjectStore(s3)
    assert len(store.names("claims")) == 1
    found = run(faulty_study(tmp_path / "log", seeds=1, generations=1), workspace=s3)
    assert found.scores.equals(scores_of_a_folder(tmp_path, 1))
    assert sum(times - 1 for times in repeated(tmp_path / "log").values()) == (0 if moment == "after its manifest" else 1)
    named = {name: json.loads(store.read(name))["attempt"] for name in store.names("manifests")}
    assert {tuple(name.split("/")[1:3]) for name in store.names("steps")} == {(Path(n).stem, a) for n, a in named.items()}
    left = 1 if moment == "after its manifest" else 0  # a claim on what is done is asked for by nobody
    assert len(store.names("claims")) == left


def test_of_two_results_the_first_counts_and_both_go_on_with_it(s3, tmp_path, machine, monkeypatch):
    """A machine was frozen for so long that another took its step over; then it goes on."""
    study = kept_study(seeds=(0,), generations=1, learner=Slow(log=str(tmp_path / "log")), names=("replace",))
    machine("frozen")
    frozen = open_workspace(s3)
    step = study.arms[0].turns[0].model
    value = step.run(frozen.realise)
    machine("b")
    winner = open_workspace(s3)
    taken = winner.realise(step)
    before = ObjectStore(s3).read(f"manifests/{step.digest}.json")
    other = type(value)(**vars(value) | {"coefficients": value.coefficients + 1.0})  # as if it had come out differently
    kept = frozen._store(step, other, 1.0)
    assert kept.coefficients.tolist() == taken.coefficients.tolist() != other.coefficients.tolist()
    assert frozen._read(step, locked=True).coefficients.tolist() == taken.coefficients.tolist()
    store = ObjectStore(s3)
    assert store.read(f"manifests/{step.digest}.json") == before
    assert len({name.split("/")[2] for name in store.names(f"steps/{step.digest}")}) == 1
    assert not list((frozen.path / "tmp").iterdir())


def test_what_was_damaged_there_is_named_and_made_again(s3, tmp_path, machine):
    study = faulty_study(tmp_path / "log", seeds=1, generations=1)
    first = run(study, workspace=s3)
    store = ObjectStore(s3)
    rows = next(name for name in store.names("steps") if name.endswith("train.parquet"))
    record = store.names("records")[0]
    for name in (rows, record):
        store.write(name, store.read(name)[:-1] + b"?")
    machine("b")
    with pytest.warns(DamagedWarning) as told:
        found = run(study, workspace=s3)
    messages = " ".join(str(warning.message) for warning in told)
    assert "train.parquet does not match its checksum" in messages
    assert record in messages
    assert found.scores.equals(first.scores)
    machine("c")
    run(study, workspace=s3)  # without a warning


def test_a_damaged_copy_of_this_machine_is_brought_again(s3, tmp_path, machine):
    study = faulty_study(tmp_path / "log", seeds=1, generations=1)
    run(study, workspace=s3)
    before = done(tmp_path / "log")
    store = open_workspace(s3)
    for path in (store.path / "steps").glob("*/train.parquet"):
        path.write_bytes(b"flipped")
    longer = faulty_study(tmp_path / "log", seeds=1, generations=2)
    with pytest.warns(DamagedWarning, match="train.parquet has 7 bytes"):
        run(longer, workspace=store)
    assert not repeated(tmp_path / "log")
    assert before.keys() <= done(tmp_path / "log").keys()


def test_a_workspace_that_was_removed_and_made_anew_is_another(s3, tmp_path, machine):
    study = faulty_study(tmp_path / "log", seeds=1, generations=1)
    run(study, workspace=s3)
    store = ObjectStore(s3)
    store.remove(store.names(""))
    assert counts(run(study, workspace=s3))["fit"] == 1


def test_records_of_a_killed_process_are_told_by_the_next(s3, tmp_path, machine):
    study = faulty_study(tmp_path / "log", seeds=1, generations=1)
    run(study, workspace=s3)
    store = ObjectStore(s3)
    names = store.names("records")
    store.remove(names)  # as if each had been killed between its file and its upload
    open_workspace(s3)
    assert store.names("records") == names


def test_what_a_store_cannot_do_is_one_error(s3, tmp_path, machine):
    study = faulty_study(tmp_path / "log", seeds=1, generations=1)
    with pytest.raises(EngineError, match="jobs of Slurm find what they need in a folder"):
        run(study, workspace=s3, engine=Slurm(cluster="local"))
    from dataclasses import replace

    with pytest.raises(StudyError, match="rows = 'needed' frees rows of a folder") as caught:
        run(replace(study, rows="needed"), workspace=s3)
    assert caught.value.at == "rows"
    assert not (tmp_path / "log" / "log").exists()

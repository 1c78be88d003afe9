"""What no study needs is freed; what one needs is never touched."""

import json
import multiprocessing
import os
import shutil
import socket

import pytest

from refeed.core.errors import UserError, WorkspaceError
from refeed.studies import run
from refeed.studies.run import results_folder
from refeed.studies.tasks import plan
from refeed.workspace import Workspace
from refeed.workspace.garbage import collect, find, note_needs
from toy import Diverging, kept_study


def record(study, store, **options):
    """Run a study and leave its results, as the command line does."""
    results = run(study, workspace=store, **options)
    results.save(results_folder(store, study))
    return results


def present(store):
    return {path.name for path in (store.path / "steps").iterdir()}


@pytest.fixture
def store(tmp_path):
    return Workspace(tmp_path / "w")


def test_nothing_of_a_recorded_study_is_free(store):
    study = kept_study()
    record(study, store)
    assert find(store).free == ()
    before = present(store)
    collect(store)
    assert present(store) == before
    assert not plan(study, Workspace(store.path)).pending


def test_what_a_changed_study_no_longer_needs_is_freed(store):
    old, new = kept_study(names=("replace", "accumulate")), kept_study(names=("replace",), generations=4)
    record(old, store)
    first = record(new, store)
    found = find(store)
    assert {item.kind for item in found.free} == {"fit", "sample"}
    assert found.bytes_free == sum(f.stat().st_size for i in found.free for f in i.path.rglob("*") if f.is_file())
    before = present(store)
    assert collect(store) == found
    assert present(store) == before - {item.path.name for item in found.free}
    assert not list((store.path / "tmp").iterdir())
    again = Workspace(store.path)
    assert not plan(new, again).pending
    assert run(new, workspace=again).scores.equals(first.scores)
    assert find(store).free == ()
    assert record(old, Workspace(store.path)).scores.num_rows == 2 * 2 * 3  # what was freed is simply made again


def test_steps_that_two_studies_share_stay_until_both_are_gone(store):
    import dataclasses

    one = dataclasses.replace(kept_study(names=("replace",)), name="one")
    two = dataclasses.replace(kept_study(names=("replace", "accumulate")), name="two")
    record(one, store)
    record(two, store)
    shutil.rmtree(store.path / "studies" / "two")
    assert find(store).free == ()  # two ran, and left no results: only --unrecorded frees what it alone needs
    assert set(find(store).unrecorded) == {"two"}
    collect(store, unrecorded=True)
    assert not plan(one, Workspace(store.path)).pending
    assert plan(two, Workspace(store.path)).pending


def test_an_interrupted_run_is_kept_unless_asked(store):
    study = kept_study(learner=Diverging(how="raise"))
    run(study, workspace=store)
    note_needs(store, study="study", digest=study.digest, steps=present(store), done=False)
    path = store.path / "needs" / f"{study.digest}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"process": 999999999}))
    assert find(store).free == ()
    assert find(store, unrecorded=True).bytes_free > 0


def test_a_run_that_goes_on_is_never_touched(store):
    run(kept_study(), workspace=store)
    for owner in ({"process": os.getppid()}, {"host": "elsewhere", "process": 999999999}):
        path = next((store.path / "needs").iterdir())
        path.write_text(json.dumps(json.loads(path.read_text()) | {"done": False} | owner))
        before = present(store)
        collect(store, unrecorded=True)
        assert present(store) == before


def _hold(path, ready, leave):
    with Workspace(path).locks.hold("0" * 32):
        ready.set()
        leave.wait(300)


def test_it_is_refused_while_a_step_is_being_made(store):
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(store.path, ready, leave))
    process.start()
    assert ready.wait(300)
    try:
        with pytest.raises(WorkspaceError, match="another process is at work"):
            collect(store)
    finally:
        leave.set()
        process.join()
    collect(store)


def test_leftovers_and_damaged_artefacts_are_freed(store):
    dead = store.path / "tmp" / f"{socket.gethostname()}+999999999+abc"
    elsewhere = store.path / "tmp" / "another-host+999999999+abc"
    (store.path / "damaged" / "x").mkdir()
    for folder in (dead, elsewhere, store.path / "damaged" / "x"):
        folder.mkdir(exist_ok=True)
        (folder / "file").write_text("12345")
    found = collect(store)
    assert sorted((item.kind, item.bytes) for item in found.free) == [("damaged", 5), ("leftover", 5)]
    assert [path.name for path in (store.path / "tmp").iterdir()] == [elsewhere.name]


def test_where_needs_are_not_known_nothing_is_freed(store):
    record(kept_study(), store)
    note = next((store.path / "needs").iterdir())
    content = note.read_text()
    for damage in (lambda: note.write_text(content[:-3]), note.unlink):
        damage()
        with pytest.raises(UserError, match=r"damaged|not noted"):
            collect(store)
    record(kept_study(), store)
    assert find(store).free == ()

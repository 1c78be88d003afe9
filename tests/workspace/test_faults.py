"""Damage is detected, named and made good; a full disk or a wrong folder is one clear message."""

import errno
import os
import shutil
import warnings

import pytest

from refeed.core.errors import NotAWorkspace, WorkspaceError
from refeed.studies import run
from refeed.workspace import DamagedWarning, Workspace, files
from toy import kept_study


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(bytes(content))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize("damage", [flip, truncate, os.unlink])
@pytest.mark.parametrize(
    "name", ["train.parquet", "truth.json", "coefficients.npy", "selection.parquet", "rows.parquet", "manifest.json"]
)
def test_damage_of_any_file_is_detected_and_made_good(tmp_path, name, damage):
    run(kept_study(seeds=(0,), metrics=()), workspace=tmp_path / "w")
    victims = sorted((tmp_path / "w" / "steps").rglob(name))
    assert victims
    for victim in victims:
        damage(victim)
    longer = kept_study(seeds=(0,), generations=4)  # measures every model and needs the rows for one more generation
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        extended = run(longer, workspace=tmp_path / "w")
    # Selections are a record for people, not read back; a step without a manifest was simply never finished.
    if name != "selection.parquet" and not (name == "manifest.json" and damage is os.unlink):
        assert any(issubclass(w.category, DamagedWarning) and name in str(w.message) for w in caught)
    assert extended.scores.equals(run(longer, workspace=tmp_path / "v").scores)


@pytest.mark.parametrize("damage", [flip, truncate])
def test_damaged_numbers_are_measured_again(tmp_path, damage):
    study = kept_study(seeds=(0,))
    expected = run(study, workspace=tmp_path / "w")
    for victim in (tmp_path / "w" / "records").iterdir():
        damage(victim)
    with pytest.warns(DamagedWarning, match="does not match its checksum"):
        again = run(study, workspace=tmp_path / "w")
    assert again.scores.equals(expected.scores)
    assert {p.name.partition("-")[0] for p in (tmp_path / "w" / "damaged").iterdir()}


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("I/O error (os error 28)")])
def test_a_full_disk_is_one_message_and_loses_nothing(tmp_path, monkeypatch, error):
    study = kept_study(seeds=(0,))
    real, calls = files.seal, []

    def full(folder, manifest):
        calls.append(folder)
        if len(calls) > 4:
            raise error
        real(folder, manifest)

    monkeypatch.setattr("refeed.workspace.workspace.seal", full)
    with pytest.raises(WorkspaceError, match=r"no space left while writing the result of a (fit|sample) step"):
        run(study, workspace=tmp_path / "w")
    assert not list((tmp_path / "w" / "tmp").iterdir())
    monkeypatch.undo()
    assert run(study, workspace=tmp_path / "w").scores.equals(run(study, workspace=tmp_path / "v").scores)


def test_another_format_is_refused(tmp_path):
    Workspace(tmp_path / "w")
    (tmp_path / "w" / "refeed.json").write_text('{"format": 99}')
    with pytest.raises(NotAWorkspace, match="written in format 99; this version of refeed reads format 1"):
        Workspace(tmp_path / "w")


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "photo.jpg").write_text("")
    with pytest.raises(NotAWorkspace, match="not a refeed workspace"):
        Workspace(tmp_path)
    with pytest.raises(NotAWorkspace, match="is a file, not a folder"):
        Workspace(tmp_path / "photo.jpg")


def test_a_read_only_folder_is_refused_clearly(tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(WorkspaceError, match="cannot write to"):
        Workspace(tmp_path / "w")


def test_leftovers_of_a_killed_process_are_cleared(tmp_path):
    import socket

    store = Workspace(tmp_path / "w")
    dead = tmp_path / "w" / "tmp" / f"{socket.gethostname()}+999999999+abc"
    alive = tmp_path / "w" / "tmp" / f"{socket.gethostname()}+{os.getpid()}+abc"
    elsewhere = tmp_path / "w" / "tmp" / "another-host+999999999+abc"
    for folder in (dead, alive, elsewhere):
        folder.mkdir()
    store.tidy()
    assert not dead.exists()
    assert alive.exists()
    assert elsewhere.exists()


def test_many_record_files_are_merged_and_lose_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("refeed.workspace.workspace.MAX_RECORD_FILES", 3)
    study = kept_study()
    results = run(study, workspace=tmp_path / "w")
    assert len(list((tmp_path / "w" / "records").iterdir())) == 1
    shutil.rmtree(tmp_path / "w" / "steps")
    assert len(Workspace(tmp_path / "w").records) == len(set(results.scores["value"].to_pylist()))

"""A bounded policy bounds the disk, and what is trimmed changes no result."""

from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from refeed import policies
from refeed.studies import run
from refeed.studies.engines import Processes
from refeed.studies.run import _Ledger
from refeed.workspace import Workspace
from toy import Slow, kept_study


def stored(workspace, file="rows.parquet"):
    """Rows of synthetic shards on the disk."""
    return sum(pq.read_metadata(path).num_rows for path in (workspace / "steps").rglob(file))


def bounded(name, generations=8, **options):
    presets = {
        "reservoir": policies.reservoir(),
        "replace": policies.replace(),
        "strata": policies.strata(),
        "accumulate": policies.accumulate(),
        "fresh-real": policies.fresh_real(),
    }
    study = kept_study(seeds=(0,), generations=generations, names=("replace",), **options)
    return replace(study, policies={name: presets[name]}, rows="needed")


@pytest.mark.parametrize("name", ["reservoir", "replace", "strata"])
def test_never_more_than_twice_the_bound_and_the_same_numbers(tmp_path, name, monkeypatch):
    study, highest = bounded(name), []
    plain = _Ledger.__call__

    def watched(self, event):
        plain(self, event)
        highest.append(stored(tmp_path / "w"))

    monkeypatch.setattr(_Ledger, "__call__", watched)
    results = run(study, workspace=tmp_path / "w")
    exhibited = 3 * study.generations
    assert max(highest) <= 2 * 30 + exhibited
    assert highest[-1] <= 30 + exhibited
    monkeypatch.undo()
    assert results.scores.equals(run(replace(study, rows="all"), workspace=tmp_path / "v").scores)
    assert stored(tmp_path / "v") == 8 * 30


def test_an_unbounded_policy_keeps_everything(tmp_path):
    run(bounded("accumulate"), workspace=tmp_path / "w")
    assert stored(tmp_path / "w") == 8 * 30


def test_real_rows_that_were_given_later_are_trimmed_too(tmp_path):
    study = bounded("fresh-real")
    results = run(study, workspace=tmp_path / "w")
    assert stored(tmp_path / "w", "train.parquet") <= 30 + 30 + 3 * 8  # the first, the last, and what is shown of the others
    whole = run(replace(study, rows="all"), workspace=tmp_path / "v")
    assert stored(tmp_path / "v", "train.parquet") >= 8 * 30
    assert results.scores.equals(whole.scores)
    again = replace(study, rows="all", cases=(replace(study.cases[0], learner=Slow(seconds=1e-9)),), seeds=(0,))
    assert run(again, workspace=tmp_path / "w").scores.equals(whole.scores)
    other = replace(study, rows="all", policies={"weighted": policies.weighted_fresh_real()})  # reads all rows of every draw
    assert run(other, workspace=tmp_path / "w").scores.equals(run(other, workspace=tmp_path / "v").scores)


def test_a_trimmed_study_can_be_extended_without_doing_anything_again(tmp_path):
    log = tmp_path / "log"
    run(bounded("reservoir", 4, learner=Slow(log=str(log))), workspace=tmp_path / "w")
    extended = run(bounded("reservoir", 7, learner=Slow(log=str(log))), workspace=tmp_path / "w")
    assert len(log.read_text().splitlines()) == 7
    assert extended.scores.equals(run(bounded("reservoir", 7), workspace=tmp_path / "v").scores)


def test_rows_that_are_needed_after_all_are_made_again(tmp_path):
    study = bounded("replace", 4)
    run(study, workspace=tmp_path / "w")
    other = replace(bounded("accumulate", 4), rows="all")  # needs all of generation 1's rows, of which three are left
    assert run(other, workspace=tmp_path / "w").scores.equals(run(other, workspace=tmp_path / "v").scores)


def test_surviving_rows_keep_their_origin_and_place(tmp_path):
    study = bounded("reservoir")
    run(study, workspace=tmp_path / "w")
    run(replace(study, rows="all"), workspace=tmp_path / "v")
    trimmed, whole = Workspace(tmp_path / "w"), Workspace(tmp_path / "v")
    seen = 0
    for turn in study.arms[0].turns:
        few, all_rows = (pq.read_table(store.folder(turn.fresh.step) / "rows.parquet") for store in (trimmed, whole))
        assert few.schema.metadata[b"refeed"] == all_rows.schema.metadata[b"refeed"]
        positions = few["refeed_position"].to_pylist() if "refeed_position" in few.column_names else range(few.num_rows)
        for position, y in zip(positions, few["y"].to_pylist(), strict=True):
            assert all_rows["y"][position].as_py() == y
            seen += 1
    assert seen >= 20


def test_it_holds_with_worker_processes(tmp_path):
    study = bounded("reservoir", 5)
    results = run(study, workspace=tmp_path / "w", engine=Processes(workers=2))
    assert results.scores.equals(run(study, workspace=tmp_path / "v").scores)
    assert stored(tmp_path / "w") <= 30 + 15


def test_showing_rows_of_a_trimmed_study_samples_nothing_again(tmp_path, monkeypatch):
    from refeed import catalogue
    from refeed.families.regression.sampler import Relabel

    study = bounded("replace", 5)
    study = replace(study, cases=(replace(study.cases[0], family="toy"),))
    monkeypatch.setattr(catalogue, "families", lambda: {"toy": "toy:FAMILY"})
    calls, plain = [], Relabel.sample
    monkeypatch.setattr(Relabel, "sample", lambda self, *a, **o: calls.append(1) or plain(self, *a, **o))
    shown = run(study, workspace=tmp_path / "w").exhibits
    assert len(calls) == 5
    monkeypatch.undo()
    monkeypatch.setattr(catalogue, "families", lambda: {"toy": "toy:FAMILY"})
    whole = run(replace(study, rows="all"), workspace=tmp_path / "v").exhibits
    assert [entry["items"] for entry in shown] == [entry["items"] for entry in whole]
    assert len(shown) == 6

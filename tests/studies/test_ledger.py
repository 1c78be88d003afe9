"""The ledger of a study: from recipes, and from what the workspace keeps."""

import json

import pyarrow.parquet as pq

from refeed.report import Results
from refeed.studies import run
from refeed.workspace import Workspace
from toy import kept_study


def lines(results, policy):
    return [line for line in results.ledger.to_pylist() if line["policy"] == policy]


def test_the_ledger_counts_rows_shares_and_bytes(tmp_path):
    study = kept_study(seeds=(0, 1), generations=3)
    results = run(study, workspace=tmp_path / "w")
    assert {line["seed"] for line in results.ledger.to_pylist()} == {0}
    assert [line["rows"] for line in lines(results, "accumulate")] == [30, 60, 90]
    assert [line["rows_kept"] for line in lines(results, "accumulate")] == [60, 90, 120]
    assert [line["rows_kept"] for line in lines(results, "replace")] == [30, 30, 30]
    assert [line["real_share"] for line in lines(results, "replace")] == [1.0, 0.0, 0.0]
    store = Workspace(tmp_path / "w")
    arm = next(arm for arm in study.arms if arm.policy == "accumulate" and arm.seed == 0)
    size = (store.folder(arm.lineage.draw) / "train.parquet").stat().st_size
    for line, turn in zip(lines(results, "accumulate"), arm.turns, strict=True):
        size += (store.folder(turn.fresh.step) / "rows.parquet").stat().st_size
        assert line["bytes"] == size
        assert line["tokens"] is None
    results.save(tmp_path / "r")
    assert Results.load(tmp_path / "r").ledger.equals(results.ledger)
    (tmp_path / "r" / "ledger.parquet").unlink()
    assert Results.load(tmp_path / "r").ledger.num_rows == 0


def test_rows_that_are_rebuilt_have_no_bytes(tmp_path, regression_study):
    results = run(regression_study(seeds=(0,)), workspace=tmp_path / "w")
    assert {line["bytes"] for line in results.ledger.to_pylist()} == {None}
    json.dumps(results.ledger.to_pylist())
    assert results.ledger.num_rows == 6


def test_tokens_are_counted_row_by_row(tmp_path):
    import numpy as np

    from refeed.core.rows import Ragged, Rows
    from refeed.core.shards import Origin, Part
    from refeed.studies.ledger import _tokens_of
    from refeed.workspace.artefacts import write_rows

    study = kept_study(seeds=(0,), generations=1)
    run(study, workspace=tmp_path / "w")
    store, shard = Workspace(tmp_path / "w"), study.arms[0].turns[0].fresh
    path = store.folder(shard.step) / "rows.parquet"
    rows = Rows(tokens=Ragged.of([[0] * n for n in range(30)], np.uint16))
    write_rows(rows, path, origin=Origin(generation=1, model="m"), digest=shard.digest)
    assert pq.read_metadata(path).num_rows == 30
    assert _tokens_of(Part(shard), store) == sum(range(30))
    assert _tokens_of(Part(shard, np.array([3, 29])), store) == 32
    left = np.array([3, 7, 29])
    fewer = rows.take(left).with_columns(refeed_position=left)
    write_rows(fewer, path, origin=Origin(generation=1, model="m"), digest=shard.digest)
    assert _tokens_of(Part(shard, np.array([3, 29])), store) == 32
    assert _tokens_of(Part(shard, np.array([3, 4])), store) is None  # trimmed: not all are there to be counted
    assert _tokens_of(Part(shard), store) is None

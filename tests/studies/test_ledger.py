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
    assert _tokens_of(Part(shard), store) == (sum(range(30)), 0)
    assert _tokens_of(Part(shard, np.array([3, 29])), store) == (32, 0)
    rows = rows.with_columns(prompt_tokens=np.minimum(np.arange(30), 5).astype(np.int32))
    left = np.array([3, 7, 29])
    fewer = rows.take(left).with_columns(refeed_position=left)
    write_rows(fewer, path, origin=Origin(generation=1, model="m"), digest=shard.digest)
    assert _tokens_of(Part(shard, np.array([3, 29])), store) == (32, 8)
    assert _tokens_of(Part(shard, np.array([3, 4])), store) is None  # trimmed: not all are there to be counted
    assert _tokens_of(Part(shard), store) is None


PROMPTED = """
generations = 2
seeds = 1
policies = ["replace", "accumulate"]
family = "language"
metrics = ["sample_audit"]
sampler = { prompt = 6, engine = "torch" }
source = { kind = "story-grammar", rows = 40, test_rows = 10 }
learner = { kind = "llama", width = 16, layers = 1, heads = 2, feed_forward = 16, context = 80, epochs = 1, batch_tokens = 320 }
"""


def test_first_tokens_of_real_stories_count_as_real_tokens(tmp_path, capsys):
    from refeed.cli.ledger import print_ledger
    from refeed.report.notices import notices
    from refeed.studies.files import parse

    results = run(parse(PROMPTED, name="prompted"), workspace=tmp_path / "w")
    first, second = lines(results, "replace")
    assert (first["prompt_tokens"], first["real_tokens"]) == (0, first["tokens"])
    assert (second["prompt_tokens"], second["real_tokens"], second["real_share"]) == (240, 240, 0)
    assert second["tokens"] > 240
    both = lines(results, "accumulate")[1]
    assert both["tokens"] == first["tokens"] + second["tokens"]
    assert (both["prompt_tokens"], both["real_tokens"]) == (240, first["tokens"] + 240)
    said = f"up to {240 / second['tokens']:.1%} of the tokens that a model is trained on (main, replace, generation 2)"
    assert any(said in notice for notice in notices(results))
    print_ledger(results)
    printed = capsys.readouterr().out
    assert "real tokens" in printed
    assert "of prompts" in printed

    plain = run(parse(PROMPTED.replace("prompt = 6, ", ""), name="plain"), workspace=tmp_path / "w")
    assert {line["prompt_tokens"] for line in plain.ledger.to_pylist()} == {0}
    assert lines(plain, "accumulate")[1]["real_tokens"] == lines(plain, "accumulate")[0]["tokens"]
    assert not any("tokens of real ones" in notice for notice in notices(plain))


def test_ledgers_written_before_a_column_existed_are_read(tmp_path):
    results = run(kept_study(seeds=(0,), generations=1), workspace=tmp_path / "w")
    folder = results.save(tmp_path / "r")
    table = pq.read_table(folder / "ledger.parquet")
    pq.write_table(table.drop_columns(["prompt_tokens", "real_tokens", "same_rows"]), folder / "ledger.parquet")
    old = Results.load(folder).ledger
    assert old.schema.equals(results.ledger.schema)
    assert old["rows_kept"].equals(results.ledger["rows_kept"])
    assert old["real_tokens"].null_count == old.num_rows

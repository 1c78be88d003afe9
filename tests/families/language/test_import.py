"""What a file says of the origin of its stories is kept, and what it does not say is unknown, never real."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from refeed.core.errors import StudyError
from refeed.families.language.source import Text
from refeed.studies import run
from refeed.studies.export import DATA, export, pick
from refeed.studies.files import parse
from refeed.workspace import Workspace
from refeed.workspace.provenance import Provenance, given, tree

STUDY = """
generations = 2
seeds = 1
policies = ["accumulate"]
family = "language"
metrics = ["sample_audit"]
source = { kind = "text", path = "PATH", vocabulary = 300 }
learner = { kind = "llama", width = 16, layers = 1, heads = 2, feed_forward = 16, context = 40, epochs = 1, batch_tokens = 160 }
"""
STORIES = [f"The fox saw {n} owls and sat down." for n in range(30)]


def jsonl(path, said):
    lines = [json.dumps({"text": story} | ({} if real is ... else {"refeed_real": real})) for story, real in said]
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize(
    ("said", "origins"),
    [
        (..., {"unknown": 30}),
        (None, {"unknown": 30}),
        (True, {"real": 30}),
        (False, {"synthetic": 30}),
        ("yes", {"unknown": 30}),  # only true and false are understood
    ],
)
def test_the_file_says_what_its_stories_are(tmp_path, said, origins):
    source = Text(path=str(jsonl(tmp_path / "a.jsonl", [(story, said) for story in STORIES])))
    assert source.origins == origins
    if said is not ...:
        pq.write_table(pa.table({"text": STORIES, "refeed_real": pa.array([said] * 30)}), tmp_path / "a.parquet")
        assert Text(path=str(tmp_path / "a.parquet")).origins == origins


def test_plain_text_is_of_unknown_origin_unless_it_is_said(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(STORIES))
    plain = Text(path=str(tmp_path / "a.txt"))
    stated = Text(path=str(tmp_path / "a.txt"), origin="real")
    assert plain.origins == {"unknown": 30}
    assert stated.origins == {"real": 30}
    assert plain.identity() == stated.identity()  # a statement changes no result
    with pytest.raises(StudyError, match="unknown, real or synthetic"):
        Text(path="a.txt", origin="maybe")


def test_a_statement_fills_only_what_the_file_leaves_open(tmp_path):
    said = [(story, [True, False, ...][n % 3]) for n, story in enumerate(STORIES)]
    path = str(jsonl(tmp_path / "a.jsonl", said))
    assert Text(path=path).origins == {"real": 10, "synthetic": 10, "unknown": 10}
    assert Text(path=path, origin="synthetic").origins == {"real": 10, "synthetic": 20}


def test_unknown_stays_unknown_in_the_tree_the_export_and_the_next_import(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(STORIES))
    study, store = parse(STUDY.replace("PATH", str(tmp_path / "a.txt")), name="mine"), Workspace(tmp_path / "w")
    results = run(study, workspace=store)
    assert results.study["cases"][0]["origins"] == {"unknown": 30}
    arm, turn = pick(study, case=None, policy=None, seed=None, generation=None)
    provenance = Provenance(store.path)
    assert "given as real, but by their file 30 of unknown origin" in next(iter(tree(provenance, arm.lineage.draw.digest)))
    assert provenance.node(arm.lineage.draw.digest).real is None
    export(study, store, arm, turn, tmp_path / "x")
    table = pq.read_table(tmp_path / "x" / DATA)
    assert set(table.column("refeed_real").to_pylist()) == {None, False}
    again = Text(path=str(tmp_path / "x"))  # an exported folder is a source
    assert again.detected == "parquet"
    kept = sum(bool(text.strip()) for text in table.column("text").to_pylist())
    assert sum(again.origins.values()) == kept
    assert again.origins["unknown"] == turn.train.num_real


def test_given_reads_as_a_sentence():
    assert given(None) == given({"real": 3}) == "real"
    assert given({"real": 1, "unknown": 2000}) == "given as real, but by their file 1 real, 2,000 of unknown origin"


def test_a_mixed_file_keeps_the_origin_of_every_story(tmp_path, capsys):
    from refeed.cli.app import app

    truth = {story: [True, False, None][n % 3] for n, story in enumerate(STORIES)}
    path = jsonl(tmp_path / "a.jsonl", [(story, ... if real is None else real) for story, real in truth.items()])
    study, store = parse(STUDY.replace("PATH", str(path)), name="mine"), Workspace(tmp_path / "w")
    run(study, workspace=store)
    arm, turn = pick(study, case=None, policy=None, seed=None, generation=None)
    export(study, store, arm, turn, tmp_path / "x")
    rows = pq.read_table(tmp_path / "x" / DATA).to_pylist()
    given_rows = [row for row in rows if row["refeed_generation"] == 0]
    assert len(given_rows) == turn.train.num_real
    assert all(row["refeed_real"] is truth[row["text"]] for row in given_rows)
    assert {row["refeed_real"] for row in rows if row["refeed_generation"]} == {False}
    known = {True: "real", False: "synthetic by its file", None: "by their file 10 real, 10 synthetic, 10 of unknown origin"}
    for row in given_rows[:6]:
        app(["explain", f"{row['refeed_shard']}:{row['refeed_row']}", "--workspace", str(store.path)], standalone_mode=False)
        assert known[truth[row["text"]]] in capsys.readouterr().out.splitlines()[0]
    assert Text(path=str(path), origin="real").identity() == Text(path=str(path)).identity()

"""An exported training set holds every row and its origin, and the tools that people use open it."""

import hashlib
import json
from dataclasses import dataclass, replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from refeed import policies
from refeed.core.errors import Damaged, StudyError, UserError
from refeed.core.memory import Memory
from refeed.core.rows import Rows
from refeed.core.steps import rows_of
from refeed.studies import run
from refeed.studies.export import DATA, export, pick
from refeed.studies.files import parse
from refeed.workspace import Workspace
from refeed.workspace.provenance import Provenance, tree
from toy import kept_study

TEXT = """
generations = 2
seeds = 1
policies = ["accumulate-subsample"]
family = "language"
metrics = ["sample_audit"]
source = { kind = "story-grammar", rows = 40, test_rows = 10 }
learner = { kind = "llama", width = 16, layers = 1, heads = 2, feed_forward = 16, context = 80, epochs = 1, batch_tokens = 320 }
"""


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    study, path = kept_study(seeds=(0, 1), generations=3), tmp_path_factory.mktemp("export") / "w"
    run(study, workspace=path)
    return study, Workspace(path)


def expected(turn, realise):
    """(shard, position, real, generation, model, weight) of every row, and the rows, from the recipe."""
    origins, rows = [], []
    for part in turn.train:
        index = np.arange(part.shard.num_rows) if part.index is None else part.index
        born = part.shard.origin
        origins += [(part.shard.digest, int(i), born.is_real, born.generation, born.model, part.weight) for i in index]
        rows.append(rows_of(part.shard, realise).take(index))
    return origins, rows


def assert_equals_the_training_set(folder, turn, realise):
    table = pq.read_table(folder / DATA)
    names = [f"refeed_{name}" for name in ("shard", "row", "real", "generation", "model", "weight")]
    origins, rows = expected(turn, realise)
    assert list(zip(*(table.column(name).to_pylist() for name in names), strict=True)) == origins
    data = Rows.from_arrow(table.drop_columns([name for name in table.column_names if name.startswith("refeed_")]))
    for name in rows[0].names:
        if name.startswith("refeed_"):
            continue
        got, want = data[name], [piece[name] for piece in rows]
        if isinstance(got, np.ndarray):
            assert np.array_equal(got, np.concatenate(want))
        else:
            assert [list(a) for a in got] == [list(a) for piece in want for a in piece]
    return table


@pytest.mark.parametrize("policy", ["replace", "accumulate", "accumulate-subsample"])
def test_a_round_trip_keeps_every_row_and_origin(kept, tmp_path, policy):
    study, store = kept
    arm, turn = pick(study, case=None, policy=policy, seed=1, generation=3)
    assert (arm.seed, turn.generation) == (1, 3)
    export(study, store, arm, turn, tmp_path / "x")
    assert_equals_the_training_set(tmp_path / "x", turn, store.realise)


def test_rows_that_are_rebuilt_are_exported_too(regression_study, tmp_path):
    study = regression_study(names=("accumulate-subsample",))
    arm, turn = pick(study, case=None, policy=None, seed=2, generation=None)
    export(study, Workspace(tmp_path / "w"), arm, turn, tmp_path / "x")  # nothing needs to have run
    assert_equals_the_training_set(tmp_path / "x", turn, Memory().realise)


def test_shards_of_several_row_groups_are_exported(monkeypatch, tmp_path):
    monkeypatch.setattr("refeed.workspace.artefacts.GROUP_BYTES", 200)
    study, store = kept_study(seeds=(0,), generations=3), Workspace(tmp_path / "w")
    run(study, workspace=store)
    arm, turn = pick(study, case=None, policy="accumulate-subsample", seed=None, generation=None)
    assert pq.ParquetFile(store.folder(turn.fresh.step) / "rows.parquet").num_row_groups > 3
    export(study, store, arm, turn, tmp_path / "x")
    assert_equals_the_training_set(tmp_path / "x", turn, store.realise)


def test_every_row_of_an_export_can_be_explained(kept, tmp_path):
    study, store = kept
    arm, turn = pick(study, case=None, policy="accumulate", seed=0, generation=3)
    export(study, store, arm, turn, tmp_path / "x")
    provenance, recipes = Provenance(store.path), json.loads((tmp_path / "x" / "provenance.json").read_text())
    for row in pq.read_table(tmp_path / "x" / DATA).to_pylist()[::17]:
        node = provenance.find(row["refeed_shard"])
        assert provenance.generation(node) == row["refeed_generation"]
        assert recipes[row["refeed_shard"]]["kind"] == node.kind
        assert row["refeed_model"] is None or recipes[row["refeed_model"]]["kind"] == "fit"


def test_a_filter_leaves_its_choice_in_the_export(tmp_path):
    from refeed.policies.wrappers import Wrapped

    @dataclass(frozen=True, kw_only=True)
    class Every:
        """Every second candidate."""

        def candidates(self, num_rows):
            return 2 * num_rows

        def apply(self, rows, num_rows, *, score_of, generation, seed):
            index = np.arange(num_rows) * 2
            chosen = {name: rows[name][index] for name in rows.names}
            return Rows(**chosen, refeed_row=index, refeed_score=rows["y"][index])

    base = kept_study(seeds=(0,), generations=3)
    study = replace(base, policies={"chosen": Wrapped(policy=policies.accumulate(), alterations=(Every(),))})
    store = Workspace(tmp_path / "w")
    run(study, workspace=store)
    arm, turn = pick(study, case=None, policy=None, seed=None, generation=None)
    export(study, store, arm, turn, tmp_path / "x")
    table = assert_equals_the_training_set(tmp_path / "x", turn, store.realise)
    assert table.column("refeed_candidate").to_pylist() == [None] * 30 + 2 * [2 * n for n in range(30)]
    assert table.column("refeed_score").to_pylist()[30:] == table.column("y").to_pylist()[30:]
    shard = arm.turns[1].fresh
    provenance = Provenance(store.path)
    lines = list(tree(provenance, shard.digest))
    assert "Every()" in lines[0]
    assert f"shard {arm.turns[1].sampled.digest[:12]}" in lines[1]
    assert provenance.depth(shard.digest) == pytest.approx(1.5)


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    pytest.importorskip("torch")
    study, folder = parse(TEXT, name="stories"), tmp_path_factory.mktemp("stories")
    store = Workspace(folder / "w")
    run(study, workspace=store)
    arm, turn = pick(study, case=None, policy=None, seed=None, generation=None)
    export(study, store, arm, turn, folder / "x")
    return turn, store, folder / "x"


def test_stories_are_exported_with_their_text(stories):
    turn, store, folder = stories
    table = assert_equals_the_training_set(folder, turn, store.realise)
    tokenizer = store.realise(turn.model.draw).tokenizer
    for tokens, text in zip(table.column("tokens").to_pylist(), table.column("text").to_pylist(), strict=True):
        assert tokenizer.decode(np.array(tokens)) == text


def test_the_card_and_the_metadata_describe_the_data(stories):
    import yaml

    _, _, folder = stories
    front = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": DATA}]
    assert front["tags"] == ["refeed", "provenance", "synthetic"]
    about = json.loads((folder / "croissant.json").read_text())
    file = about["distribution"][0]
    assert file["sha256"] == hashlib.sha256((folder / file["contentUrl"]).read_bytes()).hexdigest()
    fields = {field["name"]: field for field in about["recordSet"][0]["field"]}
    assert set(fields) == set(pq.read_schema(folder / DATA).names)
    assert fields["text"]["dataType"] == "sc:Text"
    assert fields["tokens"]["repeated"]


def test_columns_that_only_sampled_rows_have_are_kept(tmp_path):
    text = TEXT.replace("accumulate-subsample", "accumulate") + "sampler = { prompt = 3, engine = 'torch' }"
    study = parse(text, name="prompted")
    store = Workspace(tmp_path / "w")
    run(study, workspace=store)
    arm, turn = pick(study, case=None, policy=None, seed=None, generation=None)
    export(study, store, arm, turn, tmp_path / "x")
    assert pq.read_table(tmp_path / "x" / DATA).column("prompt_tokens").to_pylist() == [None] * 40 + [3] * 40
    assert "how many first tokens" in (tmp_path / "x" / "README.md").read_text()


def test_pandas_duckdb_and_datasets_open_it(stories, tmp_path):
    datasets, duckdb = pytest.importorskip("datasets"), pytest.importorskip("duckdb")
    pandas = pytest.importorskip("pandas")
    turn, _, folder = stories
    rows = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path))
    table = pq.read_table(folder / DATA)
    for name in table.column_names:
        assert list(rows[name]) == table.column(name).to_pylist()
    counted = duckdb.sql(f"select refeed_generation, count(*) from '{folder}/data/*.parquet' group by 1").fetchall()
    assert dict(counted) == turn.train.rows_by_generation()
    assert pandas.read_parquet(folder / "data")["text"].tolist() == table.column("text").to_pylist()


def test_what_cannot_be_exported_is_one_clear_error(kept, tmp_path):
    study, store = kept
    for wrong, message in [
        ({"policy": None}, "3 choices of --policy"),
        ({"policy": "acumulate"}, "did you mean 'accumulate'"),
        ({"case": "x", "policy": "replace"}, "case 'x' is not in this study"),
        ({"policy": "replace", "seed": 7}, "seed 7 is not in this study"),
        ({"policy": "replace", "generation": 4}, "generation 4 is not in this study"),
    ]:
        with pytest.raises(StudyError, match=message):
            pick(study, **({"case": None, "policy": None, "seed": None, "generation": None} | wrong))
    arm, turn = pick(study, case=None, policy="replace", seed=None, generation=None)
    with pytest.raises(UserError, match="the study did not get there"):
        export(study, Workspace(tmp_path / "empty"), arm, turn, tmp_path / "x")
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "mine").write_text("")
    with pytest.raises(UserError, match="is there already"):
        export(study, store, arm, turn, tmp_path / "y")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "y"]


def test_an_export_that_would_miss_rows_is_refused(tmp_path):
    base = kept_study(seeds=(0,), generations=4, names=("replace",))
    study = replace(base, rows="needed")
    store = Workspace(tmp_path / "w")
    run(study, workspace=store)
    arm, turn = pick(study, case=None, policy=None, seed=None, generation=2)
    with pytest.raises(UserError, match=r"rows of generation 1 are not stored any more"):
        export(study, store, arm, turn, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_damaged_rows_are_not_exported(tmp_path):
    study, store = kept_study(seeds=(0,), generations=2), Workspace(tmp_path / "w")
    run(study, workspace=store)
    arm, turn = pick(study, case=None, policy="replace", seed=None, generation=None)
    victim = store.folder(turn.train.parts[0].shard.step) / "rows.parquet"
    content = bytearray(victim.read_bytes())
    content[100] ^= 1
    victim.write_bytes(bytes(content))
    with pytest.raises(Damaged, match="does not match its checksum"):
        export(study, store, arm, turn, tmp_path / "x")
    assert not (tmp_path / "x").exists()

"""Any row is walked back to real data from the manifests alone."""

import json
import shutil

import numpy as np
import pytest

from refeed.core.errors import Damaged, UserError
from refeed.core.rows import Ragged, Rows
from refeed.core.shards import Origin
from refeed.studies import run
from refeed.workspace.artefacts import group_size, write_rows
from refeed.workspace.provenance import Provenance, as_json, tree
from refeed.workspace.shards import read_row
from toy import kept_study


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    study = kept_study(generations=4, seeds=(0,))
    path = tmp_path_factory.mktemp("provenance") / "w"
    run(study, workspace=path)
    return study, path


def arm(study, policy):
    return next(arm for arm in study.arms if arm.policy == policy)


def test_every_shard_leads_to_the_source_of_its_lineage(ran):
    study, path = ran
    provenance = Provenance(path)
    for chosen in study.arms:
        for turn in chosen.turns:
            real = [node for node in provenance.ancestors(turn.fresh.digest) if node.is_real]
            assert [node.digest for node in real] == [chosen.lineage.draw.digest]
            assert provenance.generation(provenance.node(turn.fresh.digest)) == turn.generation


def test_depth_is_the_mean_number_of_models_before_real_data(ran):
    study, path = ran
    provenance = Provenance(path)
    replace, accumulate = (arm(study, name).turns for name in ("replace", "accumulate"))
    assert [provenance.depth(turn.fresh.digest) for turn in replace] == [1, 2, 3, 4]
    depths = [0.0]
    for turn in accumulate:
        assert provenance.depth(turn.model.digest) == pytest.approx(np.mean(depths))
        assert provenance.depth(turn.fresh.digest) == pytest.approx(1 + np.mean(depths))
        depths.append(1 + float(np.mean(depths)))


def test_the_tree_names_each_shard_in_full_once_and_counts_what_it_leaves_out(ran):
    study, path = ran
    digest = arm(study, "accumulate").turns[-1].fresh.digest
    full = list(tree(Provenance(path), digest, max_models=None))
    expanded = [line for line in full if "fitted on" in line and "above" not in line]
    assert len(expanded) == 4
    assert sum(f"shard {digest[:12]}" in line for line in full) == 1
    short = list(tree(Provenance(path), digest, max_models=1))
    assert short[:2] == full[:2]
    assert any("... 1 more model and 1 more shard" in line or "... 1 more model and 0 more shards" in line for line in short)
    assert len(short) < len(full)


def test_a_thousand_generations_are_a_tree(tmp_path):
    def put(digest, **about):
        (tmp_path / "steps" / digest).mkdir(parents=True)
        (tmp_path / "steps" / digest / "manifest.json").write_text(json.dumps({"digest": digest, "outputs": {}, **about}))

    (tmp_path / "refeed.json").write_text("{}")
    put("s0", kind="draw", rows=5, source={"kind": "m:S"}, inputs=[])
    for g in range(1, 1001):
        put(f"m{g}", kind="fit", train=[{"shard": f"s{g - 1}", "generation": g - 1, "rows": 5, "of": 5, "weight": 1.0}])
        put(f"s{g}", kind="sample", model=f"m{g}", rows=5, generation=g, sampler={"kind": "m:X"}, inputs=[f"m{g}", "s0"])
    provenance = Provenance(tmp_path)
    assert provenance.depth("s1000") == 1000
    assert len(list(tree(provenance, "s1000", max_models=None))) == 2001
    assert "994 more models and 994 more shards" in list(tree(provenance, "s1000"))[-1]
    assert len(as_json(provenance, "s1000")["nodes"]) == 2001


def test_what_is_missing_is_said_and_the_rest_is_told(ran, tmp_path):
    study, path = ran
    shutil.copytree(path, tmp_path / "w")
    digest = arm(study, "replace").turns[-1].fresh.digest
    shutil.rmtree(tmp_path / "w" / "steps" / arm(study, "replace").turns[1].model.digest)
    lines = list(tree(Provenance(tmp_path / "w"), digest))
    assert "not in this workspace" in lines[-1]
    assert as_json(Provenance(tmp_path / "w"), digest)["nodes"][digest]["depth"] is None


def test_digests_are_found_by_a_unique_prefix(ran):
    study, path = ran
    provenance = Provenance(path)
    digest = arm(study, "replace").turns[0].fresh.digest
    assert provenance.find(digest[:14]).digest == digest
    with pytest.raises(UserError, match="digests begin with"):
        provenance.find(_ambiguous(path))
    for wrong in ("0" * 32, "*", "../x", ""):
        with pytest.raises(UserError):
            provenance.find(wrong)
    with pytest.raises(UserError, match="not a refeed workspace"):
        Provenance(path / "steps")


def _ambiguous(path):
    firsts = [entry.name[0] for entry in (path / "steps").iterdir()]
    return next(first for first in firsts if firsts.count(first) > 1)


@pytest.fixture
def shard(tmp_path):
    rng = np.random.default_rng(0)
    rows = Rows(
        x=rng.standard_normal((50_000, 4)),
        tokens=Ragged.of([rng.integers(0, 99, size=n) for n in rng.integers(0, 9, size=50_000)], np.uint16),
    )
    path = tmp_path / "rows.parquet"
    write_rows(rows, path, origin=Origin(generation=1, model="m"), digest="d")
    return rows, path


def test_one_row_is_read_without_its_shard(shard):
    import pyarrow.parquet as pq

    rows, path = shard
    size = group_size(len(rows), rows.nbytes)
    assert pq.ParquetFile(path).num_row_groups == -(-len(rows) // size) > 1
    for row in (0, size - 1, size, 31_234, 49_999):
        one = read_row(path, row)
        assert len(one) == 1
        assert np.array_equal(one["x"][0], rows["x"][row])
        assert np.array_equal(one["tokens"][0], rows["tokens"][row])
    with pytest.raises(UserError, match="no row 50000 among the 50000 rows"):
        read_row(path, 50_000)


def test_a_damaged_row_is_not_shown(shard):
    _, path = shard
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 0x10
    path.write_bytes(bytes(content))
    outcomes = set()
    for row in range(0, 50_000, 5_000):
        try:
            read_row(path, row)
            outcomes.add("fine")
        except Damaged:
            outcomes.add("damaged")
    assert outcomes == {"fine", "damaged"}

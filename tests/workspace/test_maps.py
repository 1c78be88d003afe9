"""Large shards are read from disk where they lie, with the same values; and maps are thrown away without loss."""

import numpy as np
import pytest

from refeed.core.rows import Ragged, Rows
from refeed.core.shards import Origin
from refeed.studies import run
from refeed.workspace import Workspace, artefacts, maps
from refeed.workspace.garbage import collect, find
from toy import kept_study


def rows(count=50):
    rng = np.random.default_rng(0)
    words = Ragged.of([rng.integers(0, 99, n) for n in rng.integers(0, 9, count)], np.uint16)
    atoms = Ragged.of([rng.normal(size=(n, 3)) for n in rng.integers(1, 5, count)], np.float32)
    return Rows(tokens=words, atoms=atoms, x=rng.normal(size=(count, 2, 3)), y=np.arange(count))


@pytest.mark.parametrize("count", [1, 50])
def test_mapped_rows_are_the_rows(tmp_path, monkeypatch, count):
    monkeypatch.setattr(artefacts, "GROUP_BYTES", 1000)  # many row groups
    monkeypatch.setattr(maps, "LARGE", 0)
    written = rows(count)
    artefacts.write_rows(written, tmp_path / "rows.parquet", origin=Origin(generation=0), digest="d")
    found = artefacts.read_rows(tmp_path / "rows.parquet", maps=tmp_path / "maps")
    assert found.names == written.names
    for name in written.names:
        ours, theirs = written[name], found[name]
        for a, b in (
            ((ours.values, theirs.values), (ours.offsets, theirs.offsets)) if isinstance(ours, Ragged) else ((ours, theirs),)
        ):
            assert a.dtype == b.dtype
            assert np.array_equal(a, b)
            assert isinstance(b, np.memmap)
    assert found.resident_bytes == 0 < written.resident_bytes
    assert found.take(np.array([count - 1]))["y"].tolist() == [count - 1]


def test_small_shards_are_not_mapped(tmp_path):
    artefacts.write_rows(rows(), tmp_path / "rows.parquet", origin=Origin(generation=0), digest="d")
    artefacts.read_rows(tmp_path / "rows.parquet", maps=tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


def test_a_study_on_maps_gives_the_same_numbers_and_gc_clears_them(tmp_path, monkeypatch):
    study = kept_study(seeds=(0,), names=("accumulate",))
    plain = run(study, workspace=tmp_path / "a")
    monkeypatch.setattr(maps, "LARGE", 0)
    run(kept_study(seeds=(0,), names=("accumulate",), generations=2), workspace=tmp_path / "b")
    store = Workspace(tmp_path / "b")
    results = run(study, workspace=store)
    assert results.scores.equals(plain.scores)
    assert list((store.path / "maps").iterdir())
    for path in (store.path / "steps").iterdir():
        path.rename(tmp_path / path.name)
    assert {item.kind for item in find(store, unrecorded=True).free} == {"map"}
    collect(store, unrecorded=True)
    assert not list((store.path / "maps").iterdir())

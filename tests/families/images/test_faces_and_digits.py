"""Sources without files: their rates, their determinism, and that what is drawn shows the attribute."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from refeed.core.errors import MissingExtra, StudyError
from refeed.core.seeds import Seed
from refeed.families.images import faces, worlds
from refeed.families.images.source import Digits, Faces
from refeed.families.images.worlds import images_of
from refeed.workspace.artefacts import read_rows, write_rows


def test_attributes_have_their_rates():
    """Each share within 4.5 standard errors of its rate: 21 values, one false alarm in 7000."""
    _, codes = faces.draw(6000, size=8, rng=np.random.default_rng(0))
    assert set(codes) == set(faces.RATES)
    for name, rates in faces.RATES.items():
        assert sum(rates.values()) == pytest.approx(1)
        shares = np.bincount(codes[name], minlength=len(rates)) / 6000
        for share, rate in zip(shares, rates.values(), strict=True):
            assert abs(share - rate) < 4.5 * np.sqrt(rate * (1 - rate) / 6000)


def test_bald_heads_have_no_long_hair():
    _, codes = faces.draw(2000, size=8, rng=np.random.default_rng(1))
    assert not codes["long_hair"][codes["hair"] == 0].any()


@pytest.mark.parametrize("name", ["glasses", "hat", "beard", "long_hair"])
def test_an_attribute_changes_the_pixels_and_nothing_else_does(name):
    factors, _ = faces._factors(6, np.random.default_rng(2))
    factors |= {part: np.zeros(6, dtype=np.float32) for part in ("glasses", "hat", "beard", "long_hair")}
    factors["hairy"] = np.ones(6, dtype=np.float32)
    without, again = faces._paint(factors, 32), faces._paint(dict(factors), 32)
    with_it = faces._paint(factors | {name: np.ones(6, dtype=np.float32)}, 32)
    assert np.array_equal(without, again)
    assert ((without != with_it).any(-1).mean((1, 2)) > 0.02).all()


def test_a_lineage_draws_its_own_faces_and_the_same_again():
    source = Faces(rows=40, test_rows=20, size=16)
    first, again, other = (source.draw(seed=Seed(seed)) for seed in (0, 0, 1))
    assert images_of(first.train).shape == (40, 16, 16, 3)
    assert images_of(first.train).dtype == np.uint8
    assert images_of(first.train).tobytes() == images_of(again.train).tobytes()
    assert images_of(first.train).tobytes() != images_of(other.train).tobytes()
    assert not {i.tobytes() for i in images_of(first.train)} & {i.tobytes() for i in images_of(first.test)}


def test_a_face_does_not_depend_on_how_it_is_cut_into_chunks(monkeypatch):
    whole, _ = faces.draw(20, size=16, rng=np.random.default_rng(3))
    monkeypatch.setattr(faces, "CHUNK", 7)
    assert np.array_equal(whole, faces.draw(20, size=16, rng=np.random.default_rng(3))[0])


def test_a_world_goes_to_disk_and_back(tmp_path, source, world):
    write_rows(world.train, tmp_path / "train.parquet", origin=_origin(source), digest="x")
    write_rows(world.test, tmp_path / "test.parquet", origin=_origin(source), digest="y")
    world.save_extras(tmp_path)
    back = source.load(tmp_path, train=read_rows(tmp_path / "train.parquet"), test=read_rows(tmp_path / "test.parquet"))
    assert np.array_equal(images_of(back.train), images_of(world.train))
    assert [a.name for a in back.attributes] == list(faces.RATES)
    for old, new in zip(world.attributes, back.attributes, strict=True):
        assert new.values == old.values
        assert np.array_equal(new.train, old.train)
        assert np.array_equal(new.test, old.test)


def _origin(source):
    from refeed.core.shards import Origin

    return Origin(generation=0)


def test_digits_are_real_scans_in_a_fixed_split():
    source = Digits(test_rows=400, size=16)
    first, second = source.draw(seed=Seed(0)), source.draw(seed=Seed(9))
    assert len(first.train) == source.num_rows == 1397
    assert images_of(first.train).shape == (1397, 16, 16, 1)
    assert np.array_equal(images_of(first.train), images_of(second.train))
    (digit,) = first.attributes
    assert (np.bincount(np.concatenate([digit.train, digit.test])) > 170).all()


def test_digits_without_scikit_learn_name_the_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtra, match="pip install scikit-learn"):
        Digits().draw(seed=Seed(0))


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"test_rows": 0}, {"size": 4}])
def test_impossible_sources_are_refused(wrong):
    with pytest.raises(StudyError, match=r"source\."):
        Faces(**wrong)


def test_a_world_knows_its_shape(world):
    assert (world.size, world.channels) == (16, 3)
    assert worlds.images_of(world.train) is world.train["image"]

"""Hugging Face data sets as sources of images: files on disk in the layouts that people have, splits, labels, mistakes."""

from __future__ import annotations

import io
import logging

import numpy as np
import pytest
from PIL import Image

from refeed.core.errors import SourceError
from refeed.core.recipes import digest
from refeed.core.seeds import Seed
from refeed.families.images import faces
from refeed.families.images.files import split_of
from refeed.families.images.huggingface import HuggingFace
from refeed.families.images.worlds import images_of

datasets = pytest.importorskip("datasets")
datasets.disable_progress_bars()


@pytest.fixture(autouse=True)
def forget():
    split_of.cache_clear()


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def made(count, seed, *, broken=()):
    small, _ = faces.draw(count, size=16, rng=np.random.default_rng(seed))
    entries = [{"bytes": b"nothing", "path": None} if number in broken else png(face) for number, face in enumerate(small)]
    kinds = datasets.Features(
        {"photo": datasets.Image(), "kind": datasets.ClassLabel(names=["cat", "dog"]), "id": datasets.Value("int64")}
    )
    columns = {"photo": entries, "kind": [number % 2 for number in range(count)], "id": list(range(count))}
    return datasets.Dataset.from_dict(columns, features=kinds), small


@pytest.fixture
def saved(tmp_path):
    (train, small), (valid, _) = made(30, 0), made(8, 1)
    datasets.DatasetDict({"train": train, "valid": valid}).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved", small


def test_a_saved_data_set_keeps_its_splits_and_labels_and_says_so(saved, caplog):
    path, small = saved
    source = HuggingFace(path=str(path), size=16)
    with caplog.at_level(logging.WARNING, logger="refeed"):
        world = source.draw(seed=Seed(0))
    assert "training rows are the split 'train', held-out rows 'valid'" in caplog.text
    assert (len(world.train), len(world.test), source.num_rows) == (30, 8, 30)
    assert np.array_equal(images_of(world.train), small)
    (kind,) = world.attributes
    assert (kind.name, kind.values) == ("kind", ("cat", "dog"))
    assert kind.train.tolist() == [number % 2 for number in range(30)]


def test_parquet_on_disk_is_read_and_split_where_it_has_one_part(tmp_path):
    rows, _ = made(40, 0)
    (tmp_path / "set" / "data").mkdir(parents=True)
    rows.to_parquet(tmp_path / "set" / "data" / "train-00000-of-00001.parquet")
    source = HuggingFace(path=str(tmp_path / "set"), size=16, test_fraction=0.25)
    world = source.draw(seed=Seed(0))
    assert (len(world.train), len(world.test)) == (30, 10)
    again = HuggingFace(path=str(tmp_path / "set"), size=16, test_fraction=0.5)
    assert digest(source) != digest(again)


def test_the_identity_is_the_content_not_the_path(saved, tmp_path):
    path, _ = saved
    path.rename(tmp_path / "moved")
    moved = digest(HuggingFace(path=str(tmp_path / "moved"), size=16))
    split_of.cache_clear()
    (tmp_path / "moved").rename(path)
    assert digest(HuggingFace(path=str(path), size=16)) == moved
    assert digest(HuggingFace(path=str(path), size=8)) != moved


def test_broken_images_are_named_and_left_out_by_choice(tmp_path, caplog):
    rows, small = made(20, 0, broken={3})
    datasets.DatasetDict({"train": rows, "test": made(5, 1)[0]}).save_to_disk(tmp_path / "set")
    with pytest.raises(SourceError, match=r"1 of 20 images under .*split 'train' cannot be read: 3 \(UnidentifiedImageError"):
        HuggingFace(path=str(tmp_path / "set"), size=16).draw(seed=Seed(0))
    world = HuggingFace(path=str(tmp_path / "set"), size=16, broken="skip").draw(seed=Seed(0))
    assert np.array_equal(images_of(world.train), np.delete(small, 3, axis=0))
    assert world.attributes[0].train.tolist() == [number % 2 for number in range(20) if number != 3]


def test_mistakes_are_one_clear_error(saved, tmp_path):
    path, _ = saved
    with pytest.raises(SourceError, match="has no split 'dev'"):
        HuggingFace(path=str(path), test="dev").draw(seed=Seed(0))
    with pytest.raises(SourceError, match="has image columns: photo"):
        HuggingFace(path=str(path), column="image").draw(seed=Seed(0))
    with pytest.raises(SourceError, match="cannot be read as a Hugging Face data set"):
        HuggingFace(path=str(tmp_path / "nowhere")).draw(seed=Seed(0))
    with pytest.raises(SourceError, match=r"source\.path is not set"):
        HuggingFace().draw(seed=Seed(0))
    datasets.DatasetDict({"a": made(5, 1)[0], "b": made(5, 1)[0]}).save_to_disk(tmp_path / "two")
    with pytest.raises(SourceError, match="has no split 'train'"):
        HuggingFace(path=str(tmp_path / "two")).draw(seed=Seed(0))

"""The user's own files: folders, arrays, and CelebA's layout, with what is broken in them."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from PIL import Image

from refeed.core.errors import SourceError, StudyError
from refeed.core.recipes import digest
from refeed.core.seeds import Seed
from refeed.families.images import decoding, faces
from refeed.families.images.files import Array, CelebA, Folder, split_of
from refeed.families.images.worlds import images_of


@pytest.fixture(autouse=True)
def forget():
    split_of.cache_clear()


def pictures(count, *, width=40, height=32, seed=0):
    small, _ = faces.draw(count, size=16, rng=np.random.default_rng(seed))
    return [Image.fromarray(face).resize((width, height)) for face in small]


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pictures"
    for number, picture in enumerate(pictures(40)):
        place = root / ("cats" if number % 4 else "dogs")
        place.mkdir(parents=True, exist_ok=True)
        picture.save(place / f"{number:03}.png")
    return root


def drawn(source):
    return source.draw(seed=Seed(0))


def test_a_folder_becomes_images_with_classes(folder):
    source = Folder(path=str(folder), size=16, classes=True, test_fraction=0.25)
    world = drawn(source)
    assert (len(world.train), len(world.test)) == (source.num_rows, 10)
    assert images_of(world.train).shape == (30, 16, 16, 3)
    assert source.attributes == ("class",)
    (kind,) = world.attributes
    assert (kind.name, kind.values) == ("class", ("cats", "dogs"))
    assert kind.train.sum() + kind.test.sum() == 10


def test_copies_are_on_one_side_and_the_split_does_not_depend_on_names(folder, tmp_path):
    world = drawn(Folder(path=str(folder), size=16))
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        (tmp_path / "copies").mkdir(exist_ok=True)
        for copy in "ab":
            (tmp_path / "copies" / f"{99 - number:03}{copy}.png").write_bytes(path.read_bytes())
    doubled = drawn(Folder(path=str(tmp_path / "copies"), size=16))
    held_out = {image.tobytes() for image in images_of(doubled.test)}
    assert held_out == {image.tobytes() for image in images_of(world.test)}
    assert len(doubled.test) == 2 * len(world.test)
    assert not held_out & {image.tobytes() for image in images_of(doubled.train)}


def test_the_identity_is_the_pixels_not_the_path(folder, tmp_path):
    one = digest(Folder(path=str(folder), size=16))
    folder.rename(tmp_path / "moved")
    assert digest(Folder(path=str(tmp_path / "moved"), size=16)) == one
    assert digest(Folder(path=str(tmp_path / "moved"), size=8)) != one
    assert digest(Folder(path=str(tmp_path / "moved"), size=16, rows=5)) != one


def test_images_are_decoded_once(folder, monkeypatch):
    first = drawn(Folder(path=str(folder), size=16))
    split_of.cache_clear()
    monkeypatch.setattr(decoding, "decode", lambda *_, **__: pytest.fail("decoded again"))
    assert np.array_equal(images_of(drawn(Folder(path=str(folder), size=16)).train), images_of(first.train))


def test_a_broken_image_is_named_and_counted(folder, caplog):
    (folder / "cats" / "001.png").write_bytes(b"not an image")
    whole = (folder / "cats" / "002.png").read_bytes()
    (folder / "cats" / "002.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"2 of 40 images .* cats/001\.png \(UnidentifiedImageError.*cats/002\.png") as caught:
        drawn(Folder(path=str(folder), size=16))
    assert "source.broken=skip" in str(caught.value)
    with caplog.at_level(logging.WARNING, logger="refeed"):
        source = Folder(path=str(folder), size=16, broken="skip")
        world = drawn(source)
    assert len(world.train) + len(world.test) == 38
    assert source.num_rows == len(world.train)
    assert "2 of 40 images" in caplog.text


def test_the_crop_is_central_and_the_resize_has_no_alias(tmp_path):
    values = np.zeros((30, 50, 3), dtype=np.uint8)
    values[:, 10:40] = np.indices((30, 30)).sum(0)[..., None] % 2 * 255  # a chessboard in the middle, black beside it
    Image.fromarray(values).save(tmp_path / "x.png")
    decoded = decoding.decode(tmp_path / "x.png", crop=None, size=10)
    assert np.abs(decoded.astype(int) - 127).max() < 30
    assert (decoding.decode(tmp_path / "x.png", crop=30, size=30) == values[:, 10:40]).all()
    with pytest.raises(ValueError, match="50 x 30 pixels are too few"):
        decoding.decode(tmp_path / "x.png", crop=40, size=10)


def test_what_is_missing_is_one_clear_error(tmp_path):
    (tmp_path / "empty").mkdir()
    for source, message in (
        (Folder(), "source.path is not set"),
        (Folder(path=str(tmp_path / "nowhere")), "there is no folder"),
        (Folder(path=str(tmp_path / "empty")), "holds no image files"),
        (CelebA(), "source.path is not set"),
        (CelebA(path=str(tmp_path / "empty")), "has no folder img_align_celeba"),
        (Array(path=str(tmp_path / "none.npz")), "there is no file"),
    ):
        with pytest.raises(SourceError, match=message):
            drawn(source)
    with pytest.raises(StudyError, match="test_fraction"):
        Folder(test_fraction=1.0)


@pytest.mark.parametrize("kind", ["uint8", "float", "first", "grey", "npy"])
def test_arrays_of_any_layout_that_can_be_told(tmp_path, kind):
    images, _ = faces.draw(30, size=16, rng=np.random.default_rng(0))
    images = images[..., 0] if kind == "grey" else images
    stored = {"float": images / 255, "first": images.transpose(0, 3, 1, 2) if kind == "first" else None}.get(kind, images)
    path = tmp_path / ("x.npy" if kind == "npy" else "x.npz")
    np.save(path, stored) if kind == "npy" else np.savez(path, data=stored, labels=np.arange(30))
    source = Array(path=str(path))
    world = drawn(source)
    found = {image.tobytes() for rows in (world.train, world.test) for image in images_of(rows)}
    assert found == {image.tobytes() for image in images}
    assert world.channels == (1 if kind == "grey" else 3)


def test_arrays_that_cannot_be_told_are_refused(tmp_path):
    for stored, message in (
        (np.zeros((5, 8, 9, 3), np.uint8), "not square images"),
        (np.full((5, 8, 8, 3), 7.0), "must lie in"),
        (np.zeros((5, 8, 8, 3), np.int64), "holds int64"),
    ):
        np.save(tmp_path / "x.npy", stored)
        split_of.cache_clear()
        with pytest.raises(SourceError, match=message):
            drawn(Array(path=str(tmp_path / "x.npy")))
    (tmp_path / "p.npy").write_bytes(b"\x80\x04junk")
    with pytest.raises(SourceError, match="not an npy or npz file"):
        drawn(Array(path=str(tmp_path / "p.npy")))


@pytest.fixture(params=["txt", "csv"])
def celeba(request, tmp_path):
    """A folder as CelebA's authors, or Kaggle, lay it out: 24 photographs of 178 x 218 pixels."""
    inner = tmp_path / ("img_align_celeba" if request.param == "txt" else "img_align_celeba/img_align_celeba")
    inner.mkdir(parents=True)
    names = [f"{number:06}.jpg" for number in range(1, 25)]
    for name, picture in zip(names, pictures(24, width=178, height=218, seed=1), strict=True):
        picture.save(inner / name, quality=95)
    parts = [0] * 14 + [1] * 4 + [2] * 6
    flags = [[1 if (row + column) % 3 == 0 else -1 for column in range(3)] for row in range(24)]
    heads = ["Eyeglasses", "Smiling", "Wearing_Hat"]
    if request.param == "txt":
        lines = [f"{name} {part}" for name, part in zip(names, parts, strict=True)]
        (tmp_path / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
        lines = ["24", " ".join(heads)] + [f"{n}  {' '.join(map(str, f))}" for n, f in zip(names, flags, strict=True)]
        (tmp_path / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    else:
        lines = ["image_id,partition"] + [f"{name},{part}" for name, part in zip(names, parts, strict=True)]
        (tmp_path / "list_eval_partition.csv").write_text("\n".join(lines) + "\n")
        lines = [",".join(["image_id", *heads])] + [f"{n},{','.join(map(str, f))}" for n, f in zip(names, flags, strict=True)]
        (tmp_path / "list_attr_celeba.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_celeba_in_its_own_layout(celeba, caplog):
    source = CelebA(path=str(celeba), size=32)
    with caplog.at_level(logging.WARNING, logger="refeed"):
        world = drawn(source)
    assert "non-commercial" in caplog.text
    assert (len(world.train), len(world.test), source.num_rows) == (14, 6, 14)
    assert images_of(world.train).shape == (14, 32, 32, 3)
    assert [a.name for a in world.attributes] == ["Eyeglasses", "Smiling", "Wearing_Hat"]
    assert world.attributes[0].train.tolist() == [int(row % 3 == 0) for row in range(14)]
    assert world.attributes[0].test.tolist() == [int(row % 3 == 0) for row in range(18, 24)]
    path = next(celeba.rglob("000001.jpg"))
    with Image.open(path) as file:
        expected = file.convert("RGB").crop((15, 35, 163, 183)).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(images_of(world.train)[0], np.asarray(expected))
    assert len(drawn(CelebA(path=str(celeba), size=32, held_out="valid", rows=10)).test) == 4


def test_celeba_with_holes_says_what_is_missing(celeba):
    next(celeba.rglob("000003.jpg")).unlink()
    with pytest.raises(SourceError, match=r"1 images that list_eval_partition\.\w+ lists are not in .* such as 000003\.jpg"):
        drawn(CelebA(path=str(celeba)))
    for path in celeba.glob("list_eval_partition*"):
        path.unlink()
    with pytest.raises(SourceError, match="has no list_eval_partition"):
        drawn(CelebA(path=str(celeba)))


def test_celeba_goes_through_a_whole_study(celeba, tmp_path):
    from refeed.studies import load_study
    from refeed.studies.run import run

    overrides = [
        f"source={{kind='celeba', path='{celeba}', size=16}}",
        "learner={kind='vae-smoke', steps=3}",
        "metrics=['test_loss', 'image_audit']",
        "generations=2",
    ]
    study = load_study("celeba", overrides=overrides)
    results = run(study, workspace=tmp_path / "runs")
    assert {row["outcome"] for row in results.outcomes.to_pylist()} == {"completed"}

"""A corpus is streamed, tokenised once, and read from disk; whatever the layout, the stories are the same."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from refeed.core import cache
from refeed.core.errors import SourceError, StudyError
from refeed.core.recipes import digest
from refeed.core.seeds import Seed
from refeed.families.language import corpus, reading
from refeed.families.language.learner import GPT2
from refeed.families.language.source import Text, stories_of

STORIES = [f"Tale {n} of Zoë and the bär.\nIt was {'very ' * (n % 7)}good." for n in range(60)]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("REFEED_CACHE", str(tmp_path / "cache"))
    corpus._survey.cache_clear()
    return tmp_path


def texts(source, side="both"):
    world = source.draw(seed=Seed(0))
    rows = {"train": (world.train,), "test": (world.test,), "both": (world.train, world.test)}[side]
    return Counter(world.tokenizer.decode(row) for part in rows for row in stories_of(part))


def test_blocks_may_cut_anything(place, monkeypatch):
    raw = "\ufeff" + "".join(f"{story}\n<|endoftext|>\n" for story in STORIES).replace("\n", "\r\n")
    (place / "a.txt").write_bytes(raw.encode())
    whole = list(reading.reading(str(place / "a.txt"), format="auto", separator="", column="text"))
    assert [story for story, _ in whole] == STORIES
    for block in (3, 7, 64):
        monkeypatch.setattr(reading, "BLOCK", block)
        found = reading.reading(str(place / "a.txt"), format="tinystories", separator="", column="text")
        assert list(found) == whole
        assert (found.num_stories, found.num_dropped) == (60, 0)
    (place / "b.txt").write_bytes(b"\xef\xbb\xbfone\ntwo \xff")
    with pytest.raises(SourceError, match="byte 0xff at offset 11"):
        list(reading.reading(str(place / "b.txt"), format="lines", separator="", column="text"))


def test_stories_without_a_separator_do_not_fill_the_memory(place, monkeypatch):
    monkeypatch.setattr(reading, "BLOCK", 100)
    monkeypatch.setattr(reading, "LONGEST", 1000)
    (place / "a.txt").write_text("x" * 5000)
    with pytest.raises(SourceError, match="characters without a separator"):
        _ = Text(path=str(place / "a.txt"), format="tinystories").num_rows


def test_the_layouts_of_the_hub_and_of_datasets_are_read(place):
    datasets = pytest.importorskip("datasets")
    shards = np.array_split(np.array(STORIES), 3)
    (place / "hub/data").mkdir(parents=True)
    for number, shard in enumerate(shards):
        pq.write_table(pa.table({"text": list(shard)}), place / f"hub/data/train-0000{number}-of-00003-abc.parquet")
    pq.write_table(pa.table({"text": ["not for training"]}), place / "hub/data/validation-00000-of-00001.parquet")
    saved = datasets.Dataset.from_dict({"text": STORIES})
    saved.save_to_disk(place / "saved")
    datasets.DatasetDict({"train": saved}).save_to_disk(place / "dict")
    saved.shuffle(seed=0).save_to_disk(place / "shuffled")
    for name, format in (("hub", "parquet"), ("saved", "arrow"), ("dict", "arrow"), ("shuffled", "arrow")):
        source = Text(path=str(place / name), vocabulary=300)
        assert source.detected == format
        assert texts(source) == Counter(STORIES)


def test_held_out_stories_may_be_a_file_of_their_own(place):
    for name, stories in (("train", STORIES), ("valid", [*STORIES[:3], "Quite another."])):
        (place / f"{name}.txt").write_text("".join(f"{story}\n<|endoftext|>\n" for story in stories))
    source = Text(path=str(place / "train.txt"), test_path=str(place / "valid.txt"), vocabulary=300)
    assert source.num_rows == 57
    assert texts(source, "test") == Counter([*STORIES[:3], "Quite another."])
    assert texts(source, "train") == Counter(STORIES[3:])
    assert digest(source) != digest(Text(path=source.path, vocabulary=300))


def test_a_fraction_of_the_training_stories_is_kept(place):
    (place / "a.txt").write_text("".join(f"{story}\n<|endoftext|>\n" for story in STORIES))
    whole, fifth = (Text(path=str(place / "a.txt"), fraction=share, vocabulary=300) for share in (1.0, 0.2))
    assert (whole.num_rows, fifth.num_rows) == (54, 11)
    assert texts(whole, "test") == texts(fifth, "test")
    assert texts(fifth, "train") <= texts(whole, "train")
    assert digest(whole) != digest(fifth)
    for wrong in (0.0, 1.5):
        with pytest.raises(StudyError, match="fraction"):
            Text(path="x", fraction=wrong)


def test_tokens_are_made_once_and_lie_on_disk(place, monkeypatch):
    (place / "a.txt").write_text("".join(f"{story}\n<|endoftext|>\n" for story in STORIES))
    source = Text(path=str(place / "a.txt"), vocabulary=300)
    first = source.draw(seed=Seed(0))
    monkeypatch.setattr(corpus, "_encode", None)  # not to be called again
    monkeypatch.setattr(corpus, "_hash", None)
    corpus._survey.cache_clear()
    again = source.draw(seed=Seed(0))
    for rows in (again.train, again.test):
        assert isinstance(stories_of(rows).values, np.memmap)
    assert np.array_equal(stories_of(first.train).values, stories_of(again.train).values)
    assert first.tokenizer.to_json() == again.tokenizer.to_json()
    with pytest.raises(TypeError):  # another vocabulary is another file
        Text(path=source.path, vocabulary=299).draw(seed=Seed(0))


def test_a_build_that_was_killed_or_cut_is_never_used(place):
    made = []

    def make(folder):
        made.append(folder)
        (folder / "data").write_bytes(b"whole")
        return {"number": len(made)}

    assert cache.built(place / "c", make) == cache.built(place / "c", make) == {"number": 1}
    (place / "c/data").write_bytes(b"who")
    assert cache.built(place / "c", make) == {"number": 2}
    (place / "c/about.json").unlink()
    assert cache.built(place / "c", make) == {"number": 3}
    leftover = place / f".making-{__import__('socket').gethostname()}+999999999+x"
    leftover.mkdir()

    def fails(folder):
        (folder / "data").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.built(place / "d", fails)
    assert sorted(path.name for path in place.iterdir()) == ["c"]


def test_the_tokens_may_be_those_of_a_model_from_elsewhere(place, small):
    (place / "a.txt").write_text("".join(f"{story}\n<|endoftext|>\n" for story in STORIES))
    plain = Text(path=str(place / "a.txt"), vocabulary=400)
    world = plain.draw(seed=Seed(0))
    from conftest import data_of

    folder = place / "model"
    folder.mkdir()
    GPT2(**small | {"steps": 2}).fit(data_of(plain, world, (1.0,)), world=world, seed=Seed(0)).save(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    source = Text(path=plain.path, tokenizer=str(folder), vocabulary=300)
    theirs = source.draw(seed=Seed(0))
    assert np.array_equal(stories_of(theirs.train).values, stories_of(world.train).values)
    assert theirs.tokenizer.config == config
    assert str(folder) not in json.dumps(source.identity())
    assert digest(source) == digest(Text(path=plain.path, tokenizer=str(folder)))
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": {"content": "!"}}))
    other = source.draw(seed=Seed(0))
    assert digest(source) != digest(Text(path=plain.path, vocabulary=300))
    assert stories_of(other.train)[0][-1] == other.tokenizer.end != theirs.tokenizer.end
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(SourceError, match="names no token that ends a text"):
        source.draw(seed=Seed(0))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(SourceError, match=r"holds no tokenizer\.json"):
        source.identity()

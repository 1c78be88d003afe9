"""A corpus larger than memory: what is known of its stories, which are held out, and their tokens as memory maps.

Two passes over the files, each kept in the cache folder: a survey (a hash a story) and the tokens. Memory holds 17 bytes a story.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from refeed.core import cache, progress
from refeed.core.errors import SourceError
from refeed.core.recipes import digest
from refeed.core.rows import Ragged
from refeed.families.language import reading, vocabulary
from refeed.families.language.lexicon import END
from refeed.families.language.reading import Reading
from refeed.families.language.vocabulary import SubwordTokenizer, Tokenizer

CHUNK = 2048  # stories encoded at a time


@dataclass(frozen=True, eq=False)
class Survey:
    """What one pass over the files of `path` found."""

    reading: Reading
    content: str  # SHA-256 of the files' bytes
    num_dropped: int
    origins: dict[str, int]  # how many stories the file says are real or synthetic, by its column refeed_real; else unknown
    hashes: np.ndarray  # one a story, S16
    said: np.ndarray  # what the file says of each story: 1 real, 0 synthetic, 2 nothing (uint8)


def survey(path: str, *, format: str, separator: str, column: str) -> Survey:
    """The survey of a file or folder; made anew when a file's size or time of change differ."""
    found = reading.reading(path, format=format, separator=separator, column=column)
    stamps = tuple((str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in found.files)
    return _survey(stamps, path, found.format, found.separator, found.column)


@lru_cache(maxsize=8)
def _survey(stamps: tuple[tuple[str, int, int], ...], path: str, format: str, separator: str, column: str) -> Survey:
    found = Reading(path, tuple(Path(name) for name, _, _ in stamps), format, separator, column)
    place = cache.cache_folder() / "text" / digest("survey 2", [list(stamp) for stamp in stamps], format, separator, column)

    def make(folder: Path) -> dict[str, Any]:
        origins = {"real": 0, "synthetic": 0, "unknown": 0}
        with (folder / "hashes").open("wb") as file, (folder / "said").open("wb") as said:
            for story, real in found:
                file.write(_hash(story))
                said.write(bytes([1 if real is True else 0 if real is False else 2]))
                origins["real" if real is True else "synthetic" if real is False else "unknown"] += 1
        if found.num_stories < 2:
            raise reading.too_few(found)
        return {"content": reading.content_of(found.files), "num_dropped": found.num_dropped, "origins": origins}

    about = cache.built(place, make)
    if about["num_dropped"] and format == "tinystories":
        warnings.warn(f"{path} ends inside a story (there is no {END} after it), which is left out", stacklevel=2)
    hashes = np.fromfile(place / "hashes", dtype="S16")
    said = np.fromfile(place / "said", dtype=np.uint8)
    return Survey(found, about["content"], about["num_dropped"], about["origins"], hashes, said)


def _hash(story: str) -> bytes:
    return blake2b(story.encode(), digest_size=16, person=b"refeed.split").digest()


@dataclass(frozen=True, eq=False)
class Split:
    """Which stories of a survey are for training, and which are held out: positions in file order."""

    train: np.ndarray
    test: np.ndarray
    held: Survey  # where the held-out stories are


@lru_cache(maxsize=8)
def split(found: Survey, *, test_fraction: float) -> Split:
    """The round(test_fraction x distinct) distinct stories with the smallest hashes are held out, at least one.

    All copies of a story lie on one side, and the order of the file does not matter.
    """
    distinct = np.unique(found.hashes)
    num_test = max(1, round(test_fraction * len(distinct)))
    if len(distinct) - num_test < 1:
        raise SourceError(
            f"{found.reading.path} has {len(distinct)} distinct stories in {len(found.hashes)}: "
            f"too few to hold out {num_test} of them",
            hint="Give more stories, or a smaller source.test_fraction.",
        )
    in_test = found.hashes <= distinct[num_test - 1]
    return Split(np.flatnonzero(~in_test), np.flatnonzero(in_test), found)


@lru_cache(maxsize=8)
def split_by_file(found: Survey, held: Survey) -> Split:
    """All stories of `held` are held out; those of `found` that occur there are left out of training."""
    return Split(np.flatnonzero(~np.isin(found.hashes, held.hashes)), np.arange(len(held.hashes)), held)


def stories(found: Survey, positions: np.ndarray) -> Iterator[str]:
    """The stories at sorted `positions`, in one pass that ends with the last of them."""
    wanted = iter(positions.tolist())
    following = next(wanted, None)
    for number, (story, _) in enumerate(found.reading):
        if number == following:
            yield story
            following = next(wanted, None)
        if following is None:
            return


def tokens(found: Survey, chosen: Split, *, tokenizer: Tokenizer | None, size: int) -> tuple[Ragged, Ragged, Tokenizer]:
    """Training and held-out stories as tokens that lie on disk, and what made them of text.

    Without a `tokenizer`, a byte-level BPE of at most `size` tokens is learnt from the training stories alone.
    """
    import tokenizers

    made_by = digest(tokenizer.to_json(), tokenizer.end) if tokenizer is not None else ["bpe", size]
    rows = [blake2b(part.astype("<i8").tobytes(), digest_size=16).hexdigest() for part in (chosen.train, chosen.test)]
    texts = [[one.content, one.reading.format, one.reading.separator, one.reading.column] for one in (found, chosen.held)]
    place = cache.cache_folder() / "tokens" / digest(texts, rows, made_by, tokenizers.__version__)

    def make(folder: Path) -> dict[str, Any]:
        maker = tokenizer or SubwordTokenizer.train(stories(found, chosen.train), size=size)
        vocabulary.save(maker, folder)
        dtype = _encode(maker, found, chosen.train, folder / "train")
        _encode(maker, chosen.held, chosen.test, folder / "test")
        return {"dtype": dtype}

    about = cache.built(place, make)
    train, test = (_open(place / side, about["dtype"]) for side in ("train", "test"))
    return train, test, tokenizer or vocabulary.load(place)


def _encode(tokenizer: Tokenizer, found: Survey, positions: np.ndarray, path: Path) -> str:
    """Write PATH.tokens, every token one after the other, and PATH.offsets; returns the type of the tokens."""
    offsets, chunk, dtype = np.zeros(len(positions) + 1, dtype=np.int64), [], "uint16"
    with path.with_suffix(".tokens").open("wb") as file:
        for number, story in enumerate(stories(found, positions), start=1):
            chunk.append(story)
            if len(chunk) == CHUNK or number == len(positions):
                coded = tokenizer.encode(chunk)
                dtype = coded.values.dtype.name
                file.write(coded.values.tobytes())
                first = number - len(chunk)
                offsets[first + 1 : number + 1] = offsets[first] + coded.offsets[1:]
                chunk.clear()
                progress.tick(number, len(positions), "stories")
    np.save(path.with_suffix(".offsets.npy"), offsets, allow_pickle=False)
    return dtype


def _open(path: Path, dtype: str) -> Ragged:
    offsets = np.load(path.with_suffix(".offsets.npy"), allow_pickle=False)
    return Ragged(np.memmap(path.with_suffix(".tokens"), dtype=dtype, mode="r"), offsets)

"""A Hugging Face data set as a source: a folder of its files, one that was saved to disk, or a name on the hub."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

import numpy as np

from refeed.core.cache import cache_folder
from refeed.core.errors import MissingExtra, SourceError, StudyError
from refeed.families.images import decoding
from refeed.families.images.files import Files, Split, enough, named, split

HELD_OUT = ("test", "validation", "valid", "val", "dev", "eval")


@dataclass(frozen=True, kw_only=True)
class HuggingFace(Files):
    """Images of a Hugging Face data set, read by `datasets`: cropped to the central square and resized to `size`.

    `path`: a folder (Parquet, or images with metadata, or what `save_to_disk` wrote), or a name on the hub, with `config` where it
    has several; a hub name is downloaded unless HF_HUB_OFFLINE is set. `column`: the image column, the only one unless given.
    Columns of class labels are attributes. `train`, `test`: names of splits; unless given, "train" (or the only one) and the first
    of test, validation, valid, val, dev, eval that is there, and what was chosen is said. Without a second split, `test_fraction`
    of the distinct images are held out. The source's identity is the decoded pixels and labels.
    """

    path: str = ""
    config: str = ""
    column: str = ""
    train: str = ""
    test: str = ""
    size: int = 32
    crop: int | None = None
    test_fraction: float = 0.1
    rows: int | None = None
    test_rows: int | None = None
    broken: Literal["refuse", "skip"] = "refuse"
    knows: ClassVar[frozenset[str]] = frozenset({"attributes"})
    version: ClassVar[int] = 1

    def find(self) -> Split:
        named(self.path)
        splits = _load(self.path, self.config)
        train, test = self._choose(splits)
        decoding.log.warning("%s: training rows are the split %r, held-out rows %s.", self.path, train, repr(test) if test else
                             f"{self.test_fraction:.0%} of its distinct images")  # fmt: skip
        parts = [_decoded(splits[name], name, self) for name in (train, test) if name]
        images = np.concatenate([images for images, _, _ in parts]) if test else parts[0][0]
        values = parts[0][1]
        codes = {name: np.concatenate([codes[name] for _, _, codes in parts]) for name in values}
        content = sha256(np.ascontiguousarray(images).tobytes())
        for name in sorted(values):
            content.update(name.encode() + codes[name].tobytes())
        if not test:
            return split(self, images, content.hexdigest(), values, codes)
        first = len(parts[0][0])
        for part, there, limit in (("training", first, self.rows), ("test", len(images) - first, self.test_rows)):
            enough(self.path, part, there, limit)
        return Split(
            images=images,
            train=np.arange(first)[: self.rows],
            test=np.arange(first, len(images))[: self.test_rows],
            content=sha256(f"{content.hexdigest()}/{first}".encode()).hexdigest(),
            values=values,
            codes=codes,
        )

    def _choose(self, splits: Mapping[str, Any]) -> tuple[str, str]:
        for option in (self.train, self.test):
            if option and option not in splits:
                raise SourceError(f"{self.path} has no split {option!r}", hint=f"There: {', '.join(splits)}.")
        train = self.train or ("train" if "train" in splits else next(iter(splits)) if len(splits) == 1 else "")
        if not train:
            raise SourceError(f"{self.path} has no split 'train'", hint=f"Choose one: --set source.train={next(iter(splits))}")
        return train, self.test or next((name for name in HELD_OUT if name in splits and name != train), "")


def _load(path: str, config: str) -> dict[str, Any]:
    """The splits of a data set by name."""
    try:
        import datasets
    except ImportError:
        raise MissingExtra(
            "source 'huggingface' needs datasets, which is not installed.", hint="Type: pip install datasets"
        ) from None
    folder = Path(path).expanduser()
    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            found = datasets.load_from_disk(str(folder))
        else:
            where = str(folder) if folder.exists() else path
            found = datasets.load_dataset(where, config or None, cache_dir=str(cache_folder() / "datasets"))
    except Exception as error:  # it raises nearly anything
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise SourceError(
            f"{path} cannot be read as a Hugging Face data set: {reason}", hint="Is it a folder, or a hub name?"
        ) from None
    return dict(found) if isinstance(found, dict) else {"train": found}


def _decoded(rows: Any, name: str, source: HuggingFace) -> tuple[np.ndarray, dict[str, tuple[str, ...]], dict[str, np.ndarray]]:
    """The images of a split, the values of its class labels, and their codes."""
    import datasets

    columns = [column for column, kind in rows.features.items() if isinstance(kind, datasets.Image)]
    column = source.column or (columns[0] if len(columns) == 1 else "")
    if column not in columns:
        there = f"image columns: {', '.join(columns)}" if columns else f"no image column among {', '.join(rows.features)}"
        raise SourceError(f"split {name!r} of {source.path} has {there}", hint="Name it: --set source.column=...")
    raw = rows.select_columns([column]).cast_column(column, datasets.Image(decode=False))

    def open_one(number: int) -> Path | BinaryIO:
        entry = raw[number][column]
        if entry is None:
            raise ValueError("no image")
        return io.BytesIO(entry["bytes"]) if entry["bytes"] is not None else Path(entry["path"])

    key = sha256(repr((rows._fingerprint, column, source.crop, source.size, len(rows))).encode()).hexdigest()[:32]
    found = decoding.decode_each(
        [str(number) for number in range(len(rows))],
        open_one,
        key=key,
        where=f"{source.path}, split {name!r}",
        crop=source.crop,
        size=source.size,
        broken=source.broken,
    )
    kept = np.array([int(number) for number in found.names], dtype=np.int64)
    labels = {label: kind for label, kind in rows.features.items() if isinstance(kind, datasets.ClassLabel)}
    for label, kind in labels.items():
        if kind.num_classes > 256:
            raise StudyError(f"column {label!r} of {source.path} has {kind.num_classes} classes; attributes have at most 256.")
    codes = {label: np.array(rows[label][:], dtype=np.int64)[kept] for label in labels}
    for label, numbers in codes.items():
        if len(numbers) and numbers.min() < 0:
            raise SourceError(f"split {name!r} of {source.path} has rows without a value of {label!r}")
    return (
        found.images,
        {label: tuple(kind.names) for label, kind in labels.items()},
        {label: numbers.astype(np.uint8) for label, numbers in codes.items()},
    )

"""Sources that are the user's own files: a folder of images, an array of pixels, and CelebA in its own layout."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b, sha256
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from refeed.core.errors import SourceError, StudyError
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.families.images import celeba, decoding, worlds
from refeed.families.images.worlds import ImageWorld

if TYPE_CHECKING:
    from refeed.families.images.huggingface import HuggingFace


@dataclass(frozen=True, kw_only=True)
class Split:
    """The images of a source: which are for training, and which are held out."""

    images: np.ndarray
    train: np.ndarray  # positions
    test: np.ndarray
    content: str  # what stands for the images in a recipe
    values: Mapping[str, tuple[str, ...]]
    codes: Mapping[str, np.ndarray]

    def world(self) -> ImageWorld:
        train = {name: codes[self.train] for name, codes in self.codes.items()}
        test = {name: codes[self.test] for name, codes in self.codes.items()}
        return worlds.world_of(self.images[self.train], self.images[self.test], self.values, (train, test))


class Files(ABC):
    """What sources of files share: one set of images for all lineages, looked for once, and told apart by its content.

    A source says by `find` which images there are, and names in `choices` what else tells it apart from others.
    """

    rebuilds: ClassVar[bool] = False
    random: ClassVar[bool] = False
    choices: ClassVar[tuple[str, ...]] = ("test_fraction", "rows", "test_rows")

    @abstractmethod
    def find(self) -> Split: ...

    def __post_init__(self) -> None:
        if not 0 < (fraction := getattr(self, "test_fraction", 0.5)) < 1:
            raise StudyError(f"source.test_fraction must lie between 0 and 1, not be {fraction}")
        for name, least in (("rows", 1), ("test_rows", 1), ("size", 8), ("crop", 1)):
            if (value := getattr(self, name, None)) is not None and value < least:
                raise StudyError(f"source.{name} must be at least {least}, not {value}")
        if (broken := getattr(self, "broken", "skip")) not in ("refuse", "skip"):
            raise StudyError(f"source.broken must be 'refuse' or 'skip', not {broken!r}")

    @property
    def num_rows(self) -> int:
        return len(split_of(self).train)

    @property
    def attributes(self) -> tuple[str, ...] | None:
        """Their names, or None while no path is set."""
        return tuple(split_of(self).values) if getattr(self, "path", "") else None

    def identity(self) -> dict[str, object]:
        return {"content": split_of(self).content} | {name: getattr(self, name) for name in self.choices}

    def draw(self, *, seed: Seed) -> ImageWorld:
        return split_of(self).world()

    def load(self, folder: Path, *, train: Rows, test: Rows) -> ImageWorld:
        return worlds.load(folder, train=train, test=test)


@lru_cache(maxsize=8)
def split_of(source: Files) -> Split:
    """The images of a source, looked for once in a process."""
    return source.find()


@dataclass(frozen=True, kw_only=True)
class Folder(Files):
    """Every image file below a folder, cropped to its central square and resized to `size`.

    `test_fraction` of the distinct images are held out, those of the smallest hashes: the split does not depend on order, and
    copies of an image are on one side. `classes`: the name of the first folder below `path` is the image's attribute "class".
    `crop`: the side of the square, the largest that fits unless given. `broken`: "refuse" or "skip" images that cannot be read.
    The source's identity is the decoded pixels, not the path.
    """

    path: str = ""
    size: int = 32
    crop: int | None = None
    classes: bool = False
    test_fraction: float = 0.1
    rows: int | None = None
    test_rows: int | None = None
    broken: Literal["refuse", "skip"] = "refuse"
    choices: ClassVar[tuple[str, ...]] = ("classes", *Files.choices)
    version: ClassVar[int] = 1

    @property
    def knows(self) -> frozenset[str]:
        return frozenset({"attributes"} if self.classes else ())

    def find(self) -> Split:
        root = named(self.path)
        files = decoding.image_files(root)
        if not files:
            raise SourceError(f"{root} holds no image files", hint=f"Known suffixes: {' '.join(sorted(decoding.SUFFIXES))}.")
        found = decoding.decode_all(root, files, crop=self.crop, size=self.size, broken=self.broken)
        values, codes = {}, {}
        if self.classes:
            classes = [name.partition("/")[0] if "/" in name else "" for name in found.names]
            values = {"class": tuple(sorted(set(classes)))}
            codes = {"class": np.array([values["class"].index(name) for name in classes], dtype=np.uint8)}
        return split(self, found.images, found.sha256, values, codes)


@dataclass(frozen=True, kw_only=True)
class Array(Files):
    """Images from an npy or npz file: uint8, or floats in [0, 1]; (rows, height, width[, channels]) or channels first.

    `key`: the array's name in an npz file, "data" or the only one unless given. The rest is as for a folder; pixels stay as they
    are.
    """

    path: str = ""
    key: str = ""
    test_fraction: float = 0.1
    rows: int | None = None
    test_rows: int | None = None
    version: ClassVar[int] = 1

    def find(self) -> Split:
        path = named(self.path)
        if not path.is_file():
            raise SourceError(f"there is no file {path}", hint="Name an npy or npz file: --set source.path=FILE")
        images, content = _array(path, path.stat().st_mtime_ns, self.key)
        return split(self, images, content)


@dataclass(frozen=True, kw_only=True)
class CelebA(Files):
    """CelebA as its authors give it: `path` holds `img_align_celeba/`, `list_eval_partition` and `list_attr_celeba` (txt or csv).

    Its own partition is kept: training rows are the training part, test rows its "test" (or "valid") part. The central 148 x 148 of
    178 x 218 pixels, resized to `size`. `rows`, `test_rows`: only so many, the first by name. Without the attribute list the images
    have no attributes. CelebA is for non-commercial research only; nothing of it may be passed on.
    """

    path: str = ""
    size: int = 64
    crop: int = 148
    held_out: Literal["test", "valid"] = "test"
    rows: int | None = None
    test_rows: int | None = None
    broken: Literal["refuse", "skip"] = "refuse"
    knows: ClassVar[frozenset[str]] = frozenset({"attributes"})
    choices: ClassVar[tuple[str, ...]] = ("held_out", "rows", "test_rows")
    version: ClassVar[int] = 1

    def draw(self, *, seed: Seed) -> ImageWorld:
        decoding.log.warning(celeba.TERMS)
        return super().draw(seed=seed)

    def find(self) -> Split:
        layout = celeba.find(named(self.path, hint=celeba.HINT))
        wanted = (0, {"valid": 1, "test": 2}[self.held_out])
        parts = [layout.names(part)[:limit] for part, limit in zip(wanted, (self.rows, self.test_rows), strict=True)]
        for part, names, limit in zip(("training", self.held_out), parts, (self.rows, self.test_rows), strict=True):
            enough(f"{layout.images} and its partition list", part, len(names), limit)
        files = [layout.images / name for names in parts for name in names]
        found = decoding.decode_all(layout.images, files, crop=self.crop, size=self.size, broken=self.broken)
        in_train = np.isin(np.array(found.names), np.array(parts[0]))
        codes = layout.codes(found.names)
        values = dict.fromkeys(codes, ("no", "yes"))
        content = sha256(found.sha256.encode() + b"".join(codes[name].tobytes() for name in sorted(codes))).hexdigest()
        return Split(
            images=found.images,
            train=np.flatnonzero(in_train),
            test=np.flatnonzero(~in_train),
            content=content,
            values=values,
            codes=codes,
        )


def named(path: str, *, hint: str = "Type: --set source.path=...") -> Path:
    if not path:
        raise SourceError("source.path is not set", hint=hint)
    return Path(path).expanduser()


def enough(where: str, part: str, there: int, wanted: int | None) -> None:
    if not there or (wanted is not None and there < wanted):
        option = "rows" if part == "training" else "test_rows"
        hint = f"Type: --set source.{option}={there}, or add images." if there else "Add images."
        raise SourceError(f"{where} give {there} {part} images, fewer than {wanted or 1}", hint=hint)


def split(
    source: Folder | Array | HuggingFace,
    images: np.ndarray,
    content: str,
    values: Mapping[str, tuple[str, ...]] | None = None,
    codes: Mapping[str, np.ndarray] | None = None,
) -> Split:
    """Hold out the distinct images of the smallest hashes, then keep as many rows as asked for, the first in order."""
    hashes = np.array([blake2b(image.tobytes(), digest_size=8).digest() for image in images], dtype="S8")
    distinct = np.unique(hashes)
    num_held_out = max(1, round(source.test_fraction * len(distinct)))
    held_out = np.isin(hashes, distinct[:num_held_out])
    train, test = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    enough(source.path, "training", len(train), source.rows)
    enough(source.path, "test", len(test), source.test_rows)
    return Split(
        images=images,
        train=train[: source.rows],
        test=test[: source.test_rows],
        content=content,
        values=values or {},
        codes=codes or {},
    )


@lru_cache(maxsize=4)
def _array(path: Path, changed: int, key: str) -> tuple[np.ndarray, str]:
    try:
        loaded = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise SourceError(f"{path} is not an npy or npz file of numbers: {error}") from None
    if not isinstance(loaded, np.ndarray):
        names = loaded.files
        chosen = key or ("data" if "data" in names else names[0] if len(names) == 1 else "")
        if chosen not in names:
            raise SourceError(f"{path} has no array {key!r}" if key else f"{path} holds {', '.join(names)}", hint="Set source.key.")
        loaded = loaded[chosen]
    return pixels(loaded, where=str(path)), sha256(np.ascontiguousarray(loaded).tobytes()).hexdigest()


def pixels(array: np.ndarray, *, where: str) -> np.ndarray:
    """Images as (rows, height, width, channels) uint8, from any layout and range that can be told for certain."""
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim == 4 and array.shape[3] not in (1, 3) and array.shape[1] in (1, 3):
        array = array.transpose(0, 2, 3, 1)
    if array.ndim != 4 or array.shape[3] not in (1, 3) or array.shape[1] != array.shape[2]:
        raise SourceError(f"{where} has the shape {array.shape}: not square images of one or three channels")
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):
            raise SourceError(f"{where} holds floats from {low:g} to {high:g}; floats must lie in [0, 1]")
        return np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise SourceError(f"{where} holds {array.dtype} numbers; pixels are uint8, or floats in [0, 1]")
    return np.ascontiguousarray(array)

"""The files of CelebA (Liu et al., 2015, "Deep learning face attributes in the wild"), as text or as Kaggle's CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from refeed.core.errors import SourceError

TERMS = "CelebA is for non-commercial research only; its images must not be copied, published or passed on."
HINT = (
    "Get CelebA from its authors (mmlab.ie.cuhk.edu.hk/projects/CelebA.html), then type: "
    "--set source.path=FOLDER, which holds img_align_celeba/, list_eval_partition and list_attr_celeba."
)


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the images are, which part each belongs to (0 training, 1 validation, 2 test), and their attributes."""

    images: Path
    partition: dict[str, int]
    attributes: tuple[str, ...]
    present: dict[str, np.ndarray]  # file name -> (attributes,) 0 or 1

    def names(self, part: int) -> list[str]:
        """The files of a part, sorted."""
        return sorted(name for name, number in self.partition.items() if number == part)

    def codes(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Each attribute of the files `names`: (files,) uint8."""
        if not self.attributes:
            return {}
        lacking = [name for name in names if name not in self.present]
        if lacking:
            raise SourceError(f"list_attr_celeba has no line for {len(lacking)} images, such as {lacking[0]}")
        table = np.stack([self.present[name] for name in names])
        return {attribute: np.ascontiguousarray(table[:, number]) for number, attribute in enumerate(self.attributes)}


def find(root: Path) -> Layout:
    """The layout below `root`, which may hold it directly or in a folder `celeba`; Kaggle's doubled image folder is understood."""
    for base in (root, root / "celeba"):
        for images in (base / "img_align_celeba" / "img_align_celeba", base / "img_align_celeba"):
            if images.is_dir():
                lists = [_first(base, name) for name in ("list_eval_partition", "list_attr_celeba")]
                if lists[0] is None:
                    raise SourceError(f"{base} has no list_eval_partition.txt or .csv, which says what is held out", hint=HINT)
                changed = tuple(path.stat().st_mtime_ns if path else 0 for path in lists)
                return _read(images, lists[0], lists[1], changed)
    raise SourceError(f"{root} has no folder img_align_celeba", hint=HINT)


def _first(base: Path, name: str) -> Path | None:
    found = [path for suffix in (".txt", ".csv") if (path := base / f"{name}{suffix}").is_file()]
    return found[0] if found else None


@lru_cache(maxsize=4)
def _read(images: Path, partition: Path, attributes: Path | None, changed: tuple[int, ...]) -> Layout:
    there = {path.name for path in images.iterdir()}
    parts = {}
    for number, fields in _lines(partition):
        if len(fields) != 2 or fields[1] not in ("0", "1", "2"):
            if number == 1:
                continue  # the head of a CSV file
            raise SourceError(f"{partition}, line {number}: expected a file name and 0, 1 or 2, not {' '.join(fields)[:80]!r}")
        parts[fields[0]] = int(fields[1])
    lacking = [name for name in parts if name not in there]
    if lacking:
        raise SourceError(f"{len(lacking)} images that {partition.name} lists are not in {images}, such as {lacking[0]}")
    names: tuple[str, ...] = ()
    present: dict[str, np.ndarray] = {}
    for number, fields in _lines(attributes) if attributes else ():
        if not names:
            if len(fields) > 1:  # the text file has a count before its head
                names = tuple(field for field in fields if field not in ("image_id", ""))
            continue
        if len(fields) != len(names) + 1:
            raise SourceError(f"{attributes}, line {number}: {len(fields) - 1} attributes where the head names {len(names)}")
        present[fields[0]] = np.array([field == "1" for field in fields[1:]], dtype=np.uint8)
    return Layout(images, parts, names, present)


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """The fields of each line that is not empty, with its number: separated by commas in a CSV file, else by blanks."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file) if path.suffix == ".csv" else (line.split() for line in file)
        return [(number, [field.strip() for field in row]) for number, row in enumerate(rows, start=1) if row]

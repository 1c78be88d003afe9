"""The real images of a lineage, and what is known of them: attributes with names, values and, for faces, true rates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refeed.core.protocols import World
from refeed.core.rows import Rows


@dataclass(frozen=True, eq=False, kw_only=True)
class Attribute:
    """What can be said of every image by one of a few values: glasses, no or yes; a digit, 0 to 9."""

    name: str
    values: tuple[str, ...]
    train: np.ndarray  # (training rows,) uint8: the place of the value in `values`
    test: np.ndarray

    def rates(self, codes: np.ndarray) -> np.ndarray:
        """The share of each value among `codes`."""
        counts = np.bincount(codes, minlength=len(self.values))
        return counts / max(1, len(codes))


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageWorld(World):
    """Real images, one column `image` of (height, width, channels) uint8, and their attributes, where they are labelled."""

    attributes: tuple[Attribute, ...] = ()

    @property
    def size(self) -> int:
        return int(images_of(self.train).shape[1])

    @property
    def channels(self) -> int:
        return int(images_of(self.train).shape[3])

    def save_extras(self, folder: Path) -> None:
        """What `source.load` needs beyond the rows."""
        about = [{"name": attribute.name, "values": attribute.values} for attribute in self.attributes]
        (folder / "attributes.json").write_text(json.dumps(about))
        codes = {f"{part}{n}": getattr(a, part) for n, a in enumerate(self.attributes) for part in ("train", "test")}
        np.savez(folder / "attributes.npz", **codes)


def load(folder: Path, *, train: Rows, test: Rows) -> ImageWorld:
    """The world whose extras `save_extras` wrote."""
    about = json.loads((folder / "attributes.json").read_text())
    with np.load(folder / "attributes.npz", allow_pickle=False) as codes:
        attributes = tuple(
            Attribute(name=a["name"], values=tuple(a["values"]), train=codes[f"train{n}"], test=codes[f"test{n}"])
            for n, a in enumerate(about)
        )
    return ImageWorld(train=train, test=test, attributes=attributes)


def world_of(
    train: np.ndarray,
    test: np.ndarray,
    values: Mapping[str, Any] | None = None,
    codes: tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]] = ({}, {}),
) -> ImageWorld:
    """A world from images, each attribute's values, and its codes in the training and the test rows."""
    attributes = tuple(
        Attribute(name=name, values=tuple(names), train=codes[0][name], test=codes[1][name])
        for name, names in (values or {}).items()
    )
    return ImageWorld(train=Rows(image=train), test=Rows(image=test), attributes=attributes)


def images_of(rows: Rows) -> np.ndarray:
    """The images of rows: (rows, height, width, channels) uint8."""
    images: np.ndarray = rows["image"]
    return images

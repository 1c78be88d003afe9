"""Image files to one array of pixels, once: decoded, cropped, resized, and kept beside a list of those that are broken.

The array lies in the user's cache folder ($REFEED_CACHE, else ~/.cache/refeed), under a name made of the files' names, sizes and
times of change and of the crop, so that a changed file is decoded again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from refeed.core import cache, progress
from refeed.core.errors import SourceError

log = logging.getLogger("refeed")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"})
BATCH = 512


@dataclass(frozen=True, eq=False)
class Decoded:
    """Images of one size, and where they come from."""

    images: np.ndarray  # (images, size, size, 3) uint8, a read-only memory map
    names: tuple[str, ...]  # one an image
    broken: tuple[str, ...]  # files left out because they could not be read, with the reason
    sha256: str  # of the images


def image_files(folder: Path) -> list[Path]:
    """Every image file below `folder`, sorted by its path."""
    if not folder.is_dir():
        raise SourceError(f"there is no folder {folder}", hint="Name the folder of images: --set source.path=FOLDER")
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def decode(file: Path | BinaryIO, *, crop: int | None, size: int) -> np.ndarray:
    """One image as (size, size, 3) uint8: its central `crop` x `crop` square (the largest if None), resized without aliasing.

    As torchvision's CenterCrop and Resize do it: an odd margin is halved to even, and the bilinear filter widens with the
    reduction.
    """
    from PIL import Image

    with Image.open(file) as opened:
        image = opened.convert("RGB")
    side = min(image.size) if crop is None else crop
    if side > min(image.size):
        raise ValueError(f"{image.width} x {image.height} pixels are too few to crop {side} x {side}")
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.BILINEAR))


def decode_all(root: Path, files: Sequence[Path], *, crop: int | None, size: int, broken: str) -> Decoded:
    """The images of `files`, in order. A broken one is named and counted: refused, or (`broken="skip"`) left out."""
    names = tuple(path.relative_to(root).as_posix() for path in files)
    stats = [path.stat() for path in files]
    key = blake2b(repr((size, crop)).encode(), digest_size=16)
    for name, stat in zip(names, stats, strict=True):
        key.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return decode_each(names, files.__getitem__, key=key.hexdigest(), where=str(root), crop=crop, size=size, broken=broken)


def decode_each(
    names: Sequence[str],
    open_one: Callable[[int], Path | BinaryIO],
    *,
    key: str,
    where: str,
    crop: int | None,
    size: int,
    broken: str,
) -> Decoded:
    """The images that `open_one` gives by number, one to a name; `key` stands for all of them, crop and size included."""
    place = cache.cache_folder() / "images" / key
    about = cache.built(place, lambda folder: _decode_into(folder, open_one, names, crop, size))
    images = np.load(place / "images.npy", mmap_mode="r", allow_pickle=False)[: len(about["names"])]
    found = Decoded(images, tuple(about["names"]), tuple(about["broken"]), about["sha256"])
    if found.broken:
        listed = "; ".join(found.broken[:3]) + ("; ..." if len(found.broken) > 3 else "")
        message = f"{len(found.broken)} of {len(names)} images under {where} cannot be read: {listed}"
        if broken == "refuse":
            raise SourceError(message, hint="Repair or remove them, or leave them out: --set source.broken=skip")
        log.warning("%s. They are left out.", message)
    return found


def _decode_into(
    folder: Path, open_one: Callable[[int], Path | BinaryIO], names: Sequence[str], crop: int | None, size: int
) -> dict[str, Any]:
    shape = (len(names), size, size, 3)
    images = np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
    kept: list[str] = []
    bad: list[str] = []
    content = sha256()

    def attempt(number: int) -> Any:
        try:
            return decode(open_one(number), crop=crop, size=size)
        except Exception as error:  # a damaged file can raise nearly anything
            return error

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for first in range(0, len(names), BATCH):
            numbers = range(first, min(first + BATCH, len(names)))
            for number, result in zip(numbers, pool.map(attempt, numbers), strict=True):
                if isinstance(result, Exception):
                    bad.append(f"{names[number]} ({type(result).__name__}: {_brief(result)})")
                    continue
                images[len(kept)] = result
                content.update(result.tobytes())
                kept.append(names[number])
            progress.tick(numbers.stop, len(names), "images")
    images.flush()
    return {"names": kept, "broken": bad, "sha256": content.hexdigest()}


def _brief(error: Exception) -> str:
    return str(error).splitlines()[0][:120] if str(error) else "no reason given"

"""Worlds that take long to make, kept in the user's cache folder ($REFEED_CACHE, else ~/.cache/refeed)."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from refeed.core.recipes import digest
from refeed.core.rows import Ragged, Rows
from refeed.families.molecules import worlds
from refeed.families.molecules.worlds import MoleculeWorld

log = logging.getLogger("refeed")
FORMAT = 1


def world(kind: str, identity: Mapping[str, object], make: Callable[[], MoleculeWorld]) -> MoleculeWorld:
    """The world of that identity, read from the cache, or made now and kept there."""
    place = folder() / "molecules" / f"{kind}-{digest(FORMAT, dict(identity))}"
    if place.exists():
        try:
            return _read(place)
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            log.warning("%s is damaged (%s); it is made again.", place, error)
            shutil.rmtree(place)
    _keep(make(), place)
    return _read(place)


def folder() -> Path:
    return Path(os.environ.get("REFEED_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "refeed")


def _keep(made: MoleculeWorld, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    working = Path(tempfile.mkdtemp(dir=place.parent, prefix=".making-"))
    try:
        made.save_extras(working)
        arrays: dict[str, Any] = {}
        for part, rows in (("train", made.train), ("test", made.test)):
            positions = worlds.positions_of(rows)
            arrays |= {
                f"{part}_molecule": rows["molecule"],
                f"{part}_values": positions.values,
                f"{part}_offsets": positions.offsets,
            }
        np.savez_compressed(working / "rows.npz", **arrays)
        try:
            working.rename(place)
        except OSError:  # another process was first, with equal content
            if not place.exists():
                raise
    finally:
        shutil.rmtree(working, ignore_errors=True)


def content(made: MoleculeWorld) -> str:
    """What stands for a world in a recipe: a hash of its graphs, its rows, and which of them are held out."""
    found = sha256("\n".join(made.molecules.smiles).encode())
    graphs = made.molecules
    for column in (graphs.atoms, graphs.charges, graphs.bonds, *(worlds.positions_of(rows) for rows in (made.train, made.test))):
        found.update(column.offsets.tobytes() + column.values.tobytes())
    for rows in (made.train, made.test):
        found.update(rows["molecule"].tobytes())
    return found.hexdigest()


@lru_cache(maxsize=4)
def _read(place: Path) -> MoleculeWorld:
    with (place / "rows.npz").open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        train, test = (
            Rows(molecule=file[f"{part}_molecule"], positions=Ragged(file[f"{part}_values"], file[f"{part}_offsets"]))
            for part in ("train", "test")
        )
    return worlds.load(place, train=train, test=test)

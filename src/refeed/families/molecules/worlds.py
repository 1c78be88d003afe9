"""The real conformers of a lineage, and the graphs they are conformers of.

A row is one conformer: `molecule`, its number among the world's graphs, and `positions` of its atoms in Angstrom, (atoms, 3)
float32. Graphs are given, never sampled: they condition the sampler in every generation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import numpy as np

from refeed.core.protocols import World
from refeed.core.rows import Ragged, Rows
from refeed.families.molecules.graphs import Molecules, empty


@dataclass(frozen=True, eq=False, kw_only=True)
class MoleculeWorld(World):
    """Real conformers, the graphs of their molecules, and what was left out of the data and why."""

    molecules: Molecules
    refused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # reason -> names

    @cached_property
    def given(self) -> np.ndarray:
        """The molecule of each real training row: what sampling is given, row by row, round and round."""
        return np.asarray(self.train["molecule"])

    @cached_property
    def real_of(self) -> dict[int, np.ndarray]:
        """The real training rows of each molecule that has any."""
        order = np.argsort(self.given, kind="stable")
        numbers, starts = np.unique(self.given[order], return_index=True)
        return dict(zip(numbers.tolist(), np.split(order, starts[1:]), strict=True))

    def save_extras(self, folder: Path) -> None:
        """What `load` needs beyond the rows."""
        self.molecules.save(folder / "molecules.npz")
        (folder / "refused.json").write_text(json.dumps(dict(self.refused)))


def load(folder: Path, *, train: Rows, test: Rows) -> MoleculeWorld:
    """The world whose extras `save_extras` wrote."""
    refused = {reason: tuple(names) for reason, names in json.loads((folder / "refused.json").read_text()).items()}
    return MoleculeWorld(train=train, test=test, molecules=Molecules.load(folder / "molecules.npz"), refused=refused)


def rows_of(numbers: Sequence[int] | np.ndarray, positions: Sequence[np.ndarray]) -> Rows:
    """Rows from the number of each conformer's molecule and its (atoms, 3) positions."""
    return Rows(molecule=np.asarray(numbers, dtype=np.int32), positions=positions_column(positions))


def positions_column(positions: Sequence[np.ndarray]) -> Ragged:
    """A column of (atoms, 3) float32 arrays."""
    return Ragged.of([np.asarray(p).reshape(-1, 3) for p in positions], np.float32) if len(positions) else empty(3, np.float32)


def positions_of(rows: Rows) -> Ragged:
    column: Ragged = rows["positions"]
    return column


def by_hash(names: Sequence[str]) -> list[str]:
    """Distinct names in an order that depends on each name alone: what a split takes from, first the held-out ones."""
    return sorted(set(names), key=lambda name: blake2b(name.encode(), digest_size=16, person=b"refeed.molecule").digest())

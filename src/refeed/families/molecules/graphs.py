"""Molecular graphs: atoms, bonds, and the pairs of atoms that a network sees, as flat NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from refeed.core.rows import Ragged

# A pair's type: 0 if further apart than three bonds, the place of its bond type in RDKit's list, or one of these.
TWO_BONDS, THREE_BONDS = 23, 24
BOND_TYPES = {1: "single", 2: "double", 3: "triple", 12: "aromatic"}


@dataclass(frozen=True, eq=False, kw_only=True)
class Molecules:
    """Graphs by number. Atoms keep one order everywhere: here, in positions, and in every picture."""

    smiles: tuple[str, ...]  # canonical, without stereochemistry: a molecule's identity
    atoms: Ragged  # atomic numbers, uint8
    charges: Ragged  # formal charges, int8
    bonds: Ragged  # (bonds, 3) int16: atom i < atom j, type
    hydrogens: bool  # whether hydrogens are among the atoms

    def __len__(self) -> int:
        return len(self.smiles)

    @cached_property
    def pairs(self) -> tuple[Ragged, Ragged]:
        """Every pair i < j of each molecule's atoms: those at most three bonds apart, and the others.

        Near ones: (pairs, 3) int32 i, j, type. Far ones: (pairs, 2) int32 i, j.
        """
        near, far = [], []
        for atoms, bonds in zip(self.atoms, self.bonds, strict=True):
            types = pair_types(len(atoms), bonds)
            i, j = np.triu_indices(len(atoms), 1)
            kind = types[i, j]
            near.append(np.stack([i, j, kind], axis=1)[kind > 0])
            far.append(np.stack([i, j], axis=1)[kind == 0])
        return _stacked(near, 3, np.int32), _stacked(far, 2, np.int32)

    @cached_property
    def one_three(self) -> Ragged:
        """Pairs of atoms two bonds apart: (pairs, 2) int32."""
        near = self.pairs[0]
        return _stacked([pairs[pairs[:, 2] == TWO_BONDS][:, :2] for pairs in near], 2, np.int32)

    @cached_property
    def torsions(self) -> Ragged:
        """Atoms a-b-c-d, (n, 4) int32, for every single bond b-c outside rings that something turns about.

        a and d are the neighbours of smallest number.
        """
        found = []
        for atoms, bonds in zip(self.atoms, self.bonds, strict=True):
            neighbours: list[list[int]] = [[] for _ in atoms]
            for i, j, _ in bonds.tolist():
                neighbours[i].append(j)
                neighbours[j].append(i)
            heavy = [sorted((a for a in near if atoms[a] > 1), key=int) for near in neighbours]
            quadruples = []
            for b, c, kind in bonds.tolist():
                before, after = ([a for a in heavy[x] if a != y] for x, y in ((b, c), (c, b)))
                if kind == 1 and before and after and not _connected_without(neighbours, b, c):
                    quadruples.append((before[0], b, c, after[0]))
            found.append(np.array(quadruples, dtype=np.int32).reshape(-1, 4))
        return _stacked(found, 4, np.int32)

    def save(self, path: Path) -> None:
        """Write a npz file that `load` reads back without unpickling anything."""
        columns = {name: getattr(self, name) for name in ("atoms", "charges", "bonds")}
        arrays = {f"{name}_{part}": getattr(column, part) for name, column in columns.items() for part in ("values", "offsets")}
        np.savez_compressed(path, smiles=np.array(self.smiles, dtype=np.str_), hydrogens=np.array(self.hydrogens), **arrays)

    @classmethod
    def load(cls, path: Path) -> Molecules:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            columns = {name: Ragged(file[f"{name}_values"], file[f"{name}_offsets"]) for name in ("atoms", "charges", "bonds")}
            return cls(smiles=tuple(map(str, file["smiles"])), hydrogens=bool(file["hydrogens"]), **columns)

    @classmethod
    def of(cls, graphs: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]], *, hydrogens: bool) -> Molecules:
        """From (SMILES, atomic numbers, formal charges, bonds (b, 3)) of each."""
        return cls(
            smiles=tuple(graph[0] for graph in graphs),
            atoms=Ragged.of([graph[1] for graph in graphs], np.uint8),
            charges=Ragged.of([graph[2] for graph in graphs], np.int8),
            bonds=_stacked([graph[3] for graph in graphs], 3, np.int16),
            hydrogens=hydrogens,
        )


def pair_types(num_atoms: int, bonds: np.ndarray) -> np.ndarray:
    """(atoms, atoms) types: a bond's own, TWO_BONDS or THREE_BONDS where the shortest way has so many, else 0."""
    types = np.zeros((num_atoms, num_atoms), dtype=np.int32)
    types[bonds[:, 0], bonds[:, 1]] = types[bonds[:, 1], bonds[:, 0]] = bonds[:, 2]
    bonded = (types > 0).astype(np.int32)
    reached = (bonded > 0) | np.eye(num_atoms, dtype=bool)
    for kind in (TWO_BONDS, THREE_BONDS):
        further = reached.astype(np.int32) @ bonded > 0
        types[further & ~reached] = kind
        reached |= further
    return types


def _connected_without(neighbours: list[list[int]], b: int, c: int) -> bool:
    """Whether a way leads from b to c that does not take their bond: the bond lies in a ring."""
    seen, waiting = {b}, [a for a in neighbours[b] if a != c]
    while waiting:
        atom = waiting.pop()
        if atom == c:
            return True
        if atom not in seen:
            seen.add(atom)
            waiting.extend(neighbours[atom])
    return False


def _stacked(arrays: Sequence[np.ndarray], width: int, dtype: type) -> Ragged:
    return Ragged.of([np.asarray(array).reshape(-1, width) for array in arrays], dtype) if arrays else empty(width, dtype)


def empty(width: int, dtype: type) -> Ragged:
    """No rows of (n, width) arrays."""
    return Ragged(np.zeros((0, width), dtype=dtype), np.zeros(1, dtype=np.int64))

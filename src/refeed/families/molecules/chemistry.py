"""What RDKit does: read molecules, refuse those that cannot serve, make conformers, and hand over graphs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from refeed.families.molecules.graphs import BOND_TYPES, Molecules

ELEMENTS = {1: "H", 6: "C", 7: "N", 8: "O", 9: "F", 15: "P", 16: "S", 17: "Cl", 35: "Br", 53: "I"}
Graph = tuple[str, np.ndarray, np.ndarray, np.ndarray]


class Refused(Exception):
    """This molecule cannot serve; the message is the reason, the same for all that share it."""


@contextmanager
def quiet() -> Iterator[None]:
    """RDKit's own log is off inside: what it refuses is counted and named by us."""
    from rdkit import rdBase

    block = rdBase.BlockLogs()
    try:
        yield
    finally:
        del block


def parse(smiles: str) -> Any:
    """The molecule of a SMILES, without hydrogens; `Refused` where RDKit cannot read it or it cannot serve."""
    from rdkit import Chem

    mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        raise Refused("RDKit cannot read it")
    check(mol)
    return mol


def check(mol: Any) -> None:
    """Refuse what is no single molecule of more than two heavy atoms of the elements in `ELEMENTS`."""
    from rdkit import Chem

    foreign = sorted({atom.GetSymbol() for atom in mol.GetAtoms() if atom.GetAtomicNum() not in ELEMENTS})
    if foreign:
        raise Refused(f"it holds atoms outside {' '.join(ELEMENTS.values())}")
    if mol.GetNumHeavyAtoms() < 3:
        raise Refused("it has fewer than three heavy atoms")
    if len(Chem.GetMolFrags(mol)) > 1:
        raise Refused("it has several fragments")
    if any(int(bond.GetBondType()) not in BOND_TYPES for bond in mol.GetBonds()):
        raise Refused(f"it has bonds other than {', '.join(BOND_TYPES.values())}")


def key(mol: Any) -> str:
    """A molecule's identity: canonical SMILES without stereochemistry and without written hydrogens."""
    from rdkit import Chem

    return str(Chem.MolToSmiles(Chem.RemoveHs(mol), isomericSmiles=False))


def graph(mol: Any, *, hydrogens: bool) -> tuple[Graph, np.ndarray]:
    """The graph of a molecule, and which of its atoms that holds, in order."""
    kept = np.array([atom.GetIdx() for atom in mol.GetAtoms() if hydrogens or atom.GetAtomicNum() > 1], dtype=np.int64)
    place = {int(atom): number for number, atom in enumerate(kept)}
    bonds = []
    for bond in mol.GetBonds():
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        if i in place and j in place:
            bonds.append((*sorted((place[i], place[j])), int(bond.GetBondType())))
    atoms = [mol.GetAtomWithIdx(int(atom)) for atom in kept]
    numbers = np.array([atom.GetAtomicNum() for atom in atoms], dtype=np.uint8)
    charges = np.array([atom.GetFormalCharge() for atom in atoms], dtype=np.int8)
    return (key(mol), numbers, charges, np.array(sorted(bonds), dtype=np.int16).reshape(-1, 3)), kept


def conformers(mol: Any, number: int, *, seed: int, hydrogens: bool) -> tuple[Graph, list[np.ndarray]]:
    """`number` conformers by ETKDGv3 (Wang et al., 2020), relaxed in the MMFF94 force field for at most 500 steps.

    Stereo centres that the SMILES leaves open are set once, as they come out in a first embedding, so that all conformers are of
    one molecule.
    """
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    whole = Chem.AddHs(mol)
    options: Any = rdDistGeom.ETKDGv3()
    options.randomSeed, options.numThreads = seed, 1
    if not rdForceFieldHelpers.MMFFHasAllMoleculeParams(whole):
        raise Refused("MMFF94 has no parameters for it")
    if rdDistGeom.EmbedMolecule(whole, options) < 0:
        raise Refused("ETKDG finds no conformer of it")
    Chem.AssignStereochemistryFrom3D(whole)
    found = list(rdDistGeom.EmbedMultipleConfs(whole, number, options))
    if len(found) < number:
        raise Refused(f"ETKDG finds fewer than {number} conformers of it")
    rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(whole, maxIters=500, numThreads=1)
    made, kept = graph(whole, hydrogens=hydrogens)
    return made, [np.asarray(conformer.GetPositions(), dtype=np.float32)[kept] for conformer in whole.GetConformers()]


def heavy_molecule(molecules: Molecules, number: int) -> tuple[Any, np.ndarray]:
    """An RDKit molecule of the heavy atoms of a graph, for matching and alignment, and which atoms of the graph those are."""
    from rdkit import Chem
    from rdkit.Chem import rdchem

    atoms, bonds = molecules.atoms[number], molecules.bonds[number]
    heavy = np.flatnonzero(atoms > 1)
    place = {int(atom): position for position, atom in enumerate(heavy)}
    made = Chem.RWMol()
    for atom in heavy:
        new = Chem.Atom(int(atoms[atom]))
        new.SetFormalCharge(int(molecules.charges[number][atom]))
        new.SetNoImplicit(True)
        made.AddAtom(new)
    for i, j, kind in bonds.tolist():
        if i in place and j in place:
            made.AddBond(place[i], place[j], rdchem.BondType.values[kind])
    mol = made.GetMol()
    for bond in mol.GetBonds():
        if bond.GetBondType() == rdchem.BondType.AROMATIC:
            for part in (bond, bond.GetBeginAtom(), bond.GetEndAtom()):
                part.SetIsAromatic(True)
    mol.UpdatePropertyCache(strict=False)
    Chem.FastFindRings(mol)
    return mol, heavy


def rmsds(molecules: Molecules, number: int, probes: list[np.ndarray], references: list[np.ndarray]) -> np.ndarray:
    """Root mean squared distances of heavy atoms in Angstrom, (probes, references).

    After the best turn (never mirrored) and the best exchange of equivalent atoms: RDKit's GetBestRMS, to which conjugated terminal
    groups are symmetric.
    """
    from rdkit import Chem
    from rdkit.Chem import rdMolAlign
    from rdkit.Geometry import Point3D

    mol, heavy = heavy_molecule(molecules, number)
    for positions in (*probes, *references):
        conformer = Chem.Conformer(mol.GetNumAtoms())
        for atom, (x, y, z) in enumerate(positions[heavy].astype(float).tolist()):
            conformer.SetAtomPosition(atom, Point3D(x, y, z))
        mol.AddConformer(conformer, assignId=True)
    probe = Chem.Mol(mol)  # GetBestRMS moves it
    table = np.empty((len(probes), len(references)))
    for a in range(len(probes)):
        for b in range(len(references)):
            table[a, b] = rdMolAlign.GetBestRMS(probe, mol, a, len(probes) + b)
    return table

"""Files as GEOM and GeoDiff distribute them, written small: what the loaders must read, and what they must refuse."""

from __future__ import annotations

import json
import pickle
import sys
import types

import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom

GOOD = ("CCOC(=O)C", "c1ccccc1CN", "CC(C)CO", "OCCN1CCOCC1", "CCc1ccco1", "CC(=O)Nc1ccccc1", "C[NH2+]CCO", "CCSCC(N)=O")


def embedded(smiles, number=2, seed=1):
    """Single-conformer RDKit molecules with hydrogens, as GEOM's `rd_mol`."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMultipleConfs(mol, number, randomSeed=seed)
    return [Chem.Mol(mol, confId=conformer.GetId()) for conformer in mol.GetConformers()]


def geom_entry(smiles, mols, **other):
    conformers = [
        {"rd_mol": mol, "boltzmannweight": 1 / (2 + place), "totalenergy": -1.0, "degeneracy": 1} for place, mol in enumerate(mols)
    ]
    charge = Chem.GetFormalCharge(Chem.MolFromSmiles(smiles))
    return {"smiles": smiles, "uniqueconfs": len(mols), "charge": charge, "conformers": conformers} | other


def write_rdkit_folder(root, entries, *, summary=None):
    """`entries`: SMILES -> the content of its pickle (None for a pickle that is missing)."""
    (root / "drugs").mkdir(parents=True)
    listed = {}
    for number, (smiles, entry) in enumerate(entries.items()):
        place = f"drugs/{number}.pickle"
        listed[smiles] = {"pickle_path": place, "uniqueconfs": 2, "charge": (entry or {}).get("charge", 0)}
        if entry is not None:
            (root / place).write_bytes(pickle.dumps(entry))
    (root / "summary_drugs.json").write_text(json.dumps(listed | (summary or {})))
    return root


def geodiff_records(molecules, *, version=1):
    """One PyTorch Geometric `Data` a conformer, pickled by a module of that name which is gone again when this returns."""
    names = ("torch_geometric", "torch_geometric.data", "torch_geometric.data.data", "torch_geometric.data.storage")
    modules = {name: types.ModuleType(name) for name in names}
    for module, name in (("torch_geometric.data.data", "Data"), ("torch_geometric.data.storage", "GlobalStorage")):
        setattr(modules[module], name, type(name, (), {"__module__": module, "__qualname__": name}))
    made = []
    for smiles, mols in molecules:
        for mol in mols:
            fields = {
                "atom_type": torch.tensor([atom.GetAtomicNum() for atom in mol.GetAtoms()]),
                "pos": torch.tensor(mol.GetConformer().GetPositions(), dtype=torch.float32) if mol.GetNumConformers() else None,
                "edge_index": torch.tensor([[0, 1], [1, 0]]),
                "edge_type": torch.tensor([1, 1]),
                "rdmol": mol,
                "smiles": smiles,
                "totalenergy": torch.tensor([-1.0]),
                "boltzmannweight": torch.tensor([0.5]),
                "idx": torch.tensor([0]),
            }
            record = modules["torch_geometric.data.data"].Data()
            if version == 1:
                record.__dict__.update(fields)
            else:
                store = modules["torch_geometric.data.storage"].GlobalStorage()
                store.__dict__["_mapping"] = fields
                record.__dict__["_store"] = store
            made.append(record)
    sys.modules.update(modules)
    try:
        return pickle.dumps(made)
    finally:
        for name in modules:
            del sys.modules[name]

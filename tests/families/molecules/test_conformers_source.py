"""Molecules by RDKit: the frozen list, files of SMILES, the split, the cache, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdMolDescriptors

from refeed.core.errors import SourceError, StudyError
from refeed.core.recipes import digest
from refeed.core.seeds import Seed
from refeed.families.molecules import cache, chemistry, metrics, worlds
from refeed.families.molecules.source import Conformers, read_smiles
from refeed.families.molecules.worlds import positions_of

GEOM_DRUGS = Path(__file__).parents[4] / "shared" / "data" / "geom_drugs_test_smiles.csv"


def test_every_molecule_of_the_frozen_list_is_drug_like():
    listed = read_smiles("")
    assert len(listed.smiles) == 401
    assert listed.refused == {}
    for smiles in listed.smiles.values():
        mol = Chem.MolFromSmiles(smiles)
        assert 12 <= mol.GetNumHeavyAtoms() <= 26
        assert 1 <= rdMolDescriptors.CalcNumRotatableBonds(mol) <= 8
        assert {atom.GetSymbol() for atom in mol.GetAtoms()} <= {"C", "N", "O", "F", "S", "Cl"}
        assert not any(atom.GetFormalCharge() for atom in mol.GetAtoms())
        assert "." not in smiles


def test_the_world_holds_what_was_asked_for(world, source):
    assert len(world.train) == source.num_rows == 16
    assert len(world.test) == 6
    assert np.bincount(world.train["molecule"], minlength=11).tolist() == [0] * 3 + [2] * 8
    assert np.bincount(world.test["molecule"], minlength=11).tolist() == [2] * 3 + [0] * 8
    for rows in (world.train, world.test):
        for number, x in zip(rows["molecule"], positions_of(rows), strict=True):
            assert x.shape == (len(world.molecules.atoms[int(number)]), 3)
    assert 1 not in world.molecules.atoms.values
    real = metrics.sound(world, world.train)
    assert real == {"connected": 1.0, "clash_free": 1.0}


def test_conformers_of_a_molecule_are_one_stereoisomer():
    mol = chemistry.parse("CC(O)C(N)c1ccccc1")
    made, positions = chemistry.conformers(mol, 4, seed=3, hydrogens=True)
    isomers = set()
    for x in positions:
        whole = Chem.AddHs(mol)
        conformer = Chem.Conformer(whole.GetNumAtoms())
        for atom, point in enumerate(x.astype(float).tolist()):
            conformer.SetAtomPosition(atom, point)
        whole.AddConformer(conformer)
        Chem.AssignStereochemistryFrom3D(whole)
        isomers.add(Chem.MolToSmiles(Chem.RemoveHs(whole)))
    assert len(isomers) == 1
    assert "@" in isomers.pop()
    assert made[0] == chemistry.key(mol)


def test_a_graph_with_hydrogens_holds_the_one_without():
    (_, atoms, _, bonds), kept = chemistry.graph(Chem.AddHs(chemistry.parse("CC(=O)OC")), hydrogens=True)
    (_, heavy_atoms, _, heavy_bonds), heavy = chemistry.graph(Chem.AddHs(chemistry.parse("CC(=O)OC")), hydrogens=False)
    assert len(atoms) == 11
    assert len(kept) == 11
    assert heavy_atoms.tolist() == atoms[heavy].tolist() == [6, 6, 8, 8, 6]
    assert heavy_bonds.tolist() == [[0, 1, 1], [1, 2, 2], [1, 3, 1], [3, 4, 1]]
    assert len(bonds) == 10


def test_it_is_made_once_and_then_read(tmp_path, monkeypatch):
    monkeypatch.setenv("REFEED_CACHE", str(tmp_path))
    source = Conformers(molecules=2, test_molecules=1, conformers=1)
    first = source.draw(seed=Seed(0))
    cache._read.cache_clear()
    monkeypatch.setattr(chemistry, "conformers", lambda *a, **k: pytest.fail("made again"))
    again = source.draw(seed=Seed(5))
    assert np.array_equal(positions_of(first.train).values, positions_of(again.train).values)
    assert cache.content(first) == cache.content(again)
    back_in = worlds.load  # the workspace's way
    first.save_extras(tmp_path)
    assert back_in(tmp_path, train=first.train, test=first.test).molecules.smiles == first.molecules.smiles


def test_a_damaged_cache_is_named_and_made_again(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("REFEED_CACHE", str(tmp_path))
    source = Conformers(molecules=2, test_molecules=1, conformers=1)
    first = source.draw(seed=Seed(0))
    (rows,) = tmp_path.rglob("rows.npz")
    content = rows.read_bytes()
    half = len(content) // 2
    for times, damaged in enumerate((content[:half], content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]), start=1):
        rows.write_bytes(damaged)
        cache._read.cache_clear()
        again = source.draw(seed=Seed(0))
        assert np.array_equal(positions_of(first.train).values, positions_of(again.train).values)
        assert caplog.text.count("is damaged") == times


def test_two_processes_may_make_the_same_world(source, world, monkeypatch, tmp_path):
    monkeypatch.setenv("REFEED_CACHE", str(tmp_path))

    def while_another_one_does():
        cache._keep(world, cache.folder() / "molecules" / place.name)
        return world

    place = cache.folder() / "molecules" / f"x-{digest(cache.FORMAT, {})}"
    found = cache.world("x", {}, while_another_one_does)
    assert len(found.train) == len(world.train)


def test_a_file_of_smiles_is_read_and_what_is_refused_is_replaced_and_named(tmp_path, caplog):
    path = tmp_path / "mine.smi"
    path.write_text("# mine\nCCOC(C)=O ester\nnonsense\nCCB(O)O\nOCCN1CCOCC1\nC1COCCN1CCO\nCC(C)Cc1ccccc1\n[Na+].[Cl-]\nCC\n")
    world = Conformers(path=str(path), molecules=2, test_molecules=1, conformers=1).draw(seed=Seed(0))
    assert sorted(world.molecules.smiles) == sorted(["CCOC(C)=O", "OCCN1CCOCC1", "CC(C)Cc1ccccc1"])
    assert {reason: list(names) for reason, names in world.refused.items()} == {
        "RDKit cannot read it": ["nonsense"],
        "it holds atoms outside H C N O F P S Cl Br I": ["CCB(O)O", "[Na+].[Cl-]"],
        "it has fewer than three heavy atoms": ["CC"],
    }
    assert "4 left out" in caplog.text


def test_a_molecule_without_conformers_is_replaced_by_the_next(monkeypatch, tmp_path):
    monkeypatch.setenv("REFEED_CACHE", str(tmp_path))
    made = chemistry.conformers
    lost = []

    def fails_once(mol, number, **options):
        if not lost:
            lost.append(chemistry.key(mol))
            raise chemistry.Refused("ETKDG finds no conformer of it")
        return made(mol, number, **options)

    monkeypatch.setattr(chemistry, "conformers", fails_once)
    world = Conformers(molecules=2, test_molecules=1, conformers=1).draw(seed=Seed(0))
    assert len(world.train) == 2
    assert list(world.refused) == ["ETKDG finds no conformer of it"]
    assert lost[0] not in world.molecules.smiles


def test_the_identity_is_the_molecules_and_the_options(tmp_path):
    one, other = tmp_path / "a.smi", tmp_path / "b.csv"
    one.write_text("CCOC(C)=O\nOCCN1CCOCC1\n")
    other.write_text("name,SMILES\nx,OCCN1CCOCC1\ny,CCOC(C)=O\nz,CCOC(C)=O\n")
    options = {"molecules": 1, "test_molecules": 1}
    assert digest(Conformers(path=str(one), **options)) == digest(Conformers(path=str(other), **options))
    digests = {digest(Conformers(**changed)) for changed in ({}, {"molecules": 5}, {"conformers": 3}, {"hydrogens": True})}
    assert len(digests) == 4


@pytest.mark.skipif(not GEOM_DRUGS.exists(), reason="the file of GEOM-Drugs test molecules is not beside the project")
def test_real_geom_drugs_molecules_are_read_and_given_conformers():
    listed = read_smiles(str(GEOM_DRUGS))
    assert (len(listed.smiles), listed.refused) == (1000, {})
    world = Conformers(path=str(GEOM_DRUGS), molecules=4, test_molecules=2, conformers=2).draw(seed=Seed(0))
    assert (len(world.train), len(world.test), world.refused) == (8, 4, {})
    assert set(world.molecules.smiles) <= set(listed.smiles)
    assert metrics.sound(world, world.train)["connected"] == 1.0


def test_mistakes_are_said(tmp_path):
    with pytest.raises(SourceError, match=r"cannot be read: No such file"):
        Conformers(path=str(tmp_path / "no.smi")).draw(seed=Seed(0))
    with pytest.raises(SourceError, match="has 401 molecules that can be used, fewer than"):
        Conformers(molecules=400).draw(seed=Seed(0))
    (tmp_path / "x.csv").write_text("name\nCCO\n")
    with pytest.raises(SourceError, match="has no column smiles, only name"):
        Conformers(path=str(tmp_path / "x.csv")).draw(seed=Seed(0))
    (tmp_path / "x.smi").write_text("nonsense\n")
    with pytest.raises(
        SourceError, match=r"holds no molecule that can be used; 1 left out: RDKit cannot read it \(1, such as nonsense"
    ):
        Conformers(path=str(tmp_path / "x.smi")).draw(seed=Seed(0))
    with pytest.raises(StudyError, match="conformers must be at least 1"):
        Conformers(conformers=0)

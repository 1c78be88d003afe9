"""GEOM's and GeoDiff's own files: read whole, split by molecule, and safe to open."""

from __future__ import annotations

import logging
import os
import pickle

import numpy as np
import pytest
from geom_files import GOOD, embedded, geodiff_records, geom_entry, write_rdkit_folder
from rdkit import Chem

from refeed.core.errors import SourceError, StudyError
from refeed.core.recipes import digest
from refeed.core.seeds import Seed
from refeed.families.molecules import chemistry, unpickling
from refeed.families.molecules.geom import Geom
from refeed.families.molecules.worlds import positions_of


@pytest.fixture
def folder(tmp_path):
    return write_rdkit_folder(tmp_path / "rdkit_folder", {smiles: geom_entry(smiles, embedded(smiles)) for smiles in GOOD})


def draw(source):
    return source.draw(seed=Seed(0))


def test_an_rdkit_folder_is_read_as_it_is(folder):
    source = Geom(path=str(folder), test_molecules=2)
    world = draw(source)
    assert source.num_rows == len(world.train) == 12
    assert len(world.test) == 4
    assert set(world.molecules.smiles) == {chemistry.key(chemistry.parse(smiles)) for smiles in GOOD}
    assert world.refused == {}
    expected = {chemistry.key(m): m.GetConformer().GetPositions() for s in GOOD for m in embedded(s)[:1]}
    for rows in (world.train, world.test):
        first = int(rows["molecule"][0])
        assert np.allclose(positions_of(rows)[0], expected[world.molecules.smiles[first]], atol=1e-5)
    assert 1 in world.molecules.atoms.values
    heavy = draw(Geom(path=str(folder), test_molecules=2, hydrogens=False))
    assert 1 not in heavy.molecules.atoms.values
    assert heavy.molecules.smiles == world.molecules.smiles


def test_no_molecule_is_on_both_sides_and_limits_hold(folder):
    world = draw(Geom(path=str(folder), molecules=3, test_molecules=2, conformers=1))
    train, test = set(world.train["molecule"].tolist()), set(world.test["molecule"].tolist())
    assert (len(train), len(test), len(world.train), len(world.test)) == (3, 2, 3, 2)
    assert not train & test
    with pytest.raises(SourceError, match="6 training molecules that can be used, fewer than the 9"):
        draw(Geom(path=str(folder), molecules=9, test_molecules=2))


def test_conformers_of_largest_weight_come_first(tmp_path):
    entries = {smiles: geom_entry(smiles, embedded(smiles)) for smiles in GOOD[:3]}
    for entry in entries.values():
        entry["conformers"].reverse()
    world = draw(Geom(path=str(write_rdkit_folder(tmp_path / "f", entries)), test_molecules=1, conformers=1))
    best = {chemistry.key(m): m.GetConformer().GetPositions() for s in GOOD[:3] for m in embedded(s)[:1]}
    number = int(world.train["molecule"][0])
    assert np.allclose(positions_of(world.train)[0], best[world.molecules.smiles[number]], atol=1e-5)


def test_what_cannot_serve_is_named_and_counted(tmp_path, caplog):
    good = {smiles: geom_entry(smiles, embedded(smiles)) for smiles in GOOD[:4]}
    boron, salt = "CCB(O)O", "CCO.CCN"
    wrong_positions = embedded("CCCO")
    wrong_positions[0].GetConformer().SetAtomPosition(0, (float("nan"), 0.0, 0.0))
    bad = {
        boron: geom_entry(boron, embedded(boron)),
        salt: geom_entry(salt, embedded(salt)),
        "CCCCN": geom_entry("CCCCN", embedded("CCCCN"), charge=1),  # says another charge than its atoms have
        "CCCC=O": geom_entry("CCCC=O", embedded("CCCCO")),  # reacted on the way
        "CCCCl": geom_entry("CCCCl", []),  # no conformers
        "CCCF": geom_entry("CCCF", [Chem.AddHs(Chem.MolFromSmiles("CCCF"))]),  # no positions
        "CCCBr": None,  # no pickle
        "CCCO": geom_entry("CCCO", wrong_positions),
    }
    summary = {"not a molecule": {"pickle_path": "drugs/0.pickle"}, "CCCS": {"charge": 0}, "CC(C)S": {"pickle_path": "../../x"}}
    root = write_rdkit_folder(tmp_path / "f", good | bad, summary=summary)
    with caplog.at_level(logging.WARNING, "refeed"):
        world = draw(Geom(path=str(root), test_molecules=1))
    refused = {reason: set(names) for reason, names in world.refused.items()}
    assert refused == {
        "it holds atoms outside H C N O F P S Cl Br I": {boron},
        "it has several fragments": {salt},
        "its charge is not the one written down for it": {"CCCCN"},
        "its graph is not that of its SMILES": {"CCCC=O"},
        "its pickle lists no conformers": {"CCCCl"},
        "a conformer without positions": {"CCCF"},
        "it has no conformers": {"CCCF"},
        "its pickle is missing": {"CCCBr"},
        "a conformer whose positions are not three finite numbers an atom": {"CCCO"},
        "RDKit cannot read it": {"not a molecule"},
        "the summary names no pickle for it": {"CCCS"},
        "its pickle would lie outside the folder": {"CC(C)S"},
    }
    assert "12 left out" in caplog.text
    assert "atoms outside H C N O F P S Cl Br I (1, such as CCB(O)O)" in caplog.text
    assert set(world.molecules.smiles) == {chemistry.key(chemistry.parse(s)) for s in (*GOOD[:4], "CCCO")}
    assert np.isfinite(positions_of(world.train).values).all()


@pytest.mark.parametrize("version", [1, 2])
def test_geodiff_pickles_are_read_without_their_library(tmp_path, version):
    path = tmp_path / "train.pkl"
    path.write_bytes(geodiff_records([(smiles, embedded(smiles)) for smiles in GOOD], version=version))
    world = draw(Geom(path=str(path), test_molecules=3))
    assert (len(world.train), len(world.test)) == (10, 6)
    expected = {chemistry.key(m): m.GetConformer().GetPositions() for s in GOOD for m in embedded(s)[:1]}
    number = int(world.train["molecule"][0])
    assert np.allclose(positions_of(world.train)[0], expected[world.molecules.smiles[number]], atol=1e-4)


def test_a_held_out_file_of_its_own_keeps_its_molecules_to_itself(tmp_path):
    for name, part in (("train.pkl", GOOD[:5]), ("val.pkl", GOOD[4:])):
        (tmp_path / name).write_bytes(geodiff_records([(smiles, embedded(smiles)) for smiles in part]))
    world = draw(Geom(path=str(tmp_path / "train.pkl"), test_path=str(tmp_path / "val.pkl")))
    assert len(world.train) == len(world.test) == 8
    assert world.refused == {"it is held out too": (chemistry.key(chemistry.parse(GOOD[4])),)}


def test_geodiff_records_that_contradict_themselves_are_counted(tmp_path):
    records = [(smiles, embedded(smiles)) for smiles in GOOD[:3]]
    records += [("CCCCN", embedded("CCCC[NH3+]")), ("CCCF", [Chem.AddHs(Chem.MolFromSmiles("CCCF"))])]
    path = tmp_path / "train.pkl"
    path.write_bytes(geodiff_records(records))
    world = draw(Geom(path=str(path), test_molecules=1))
    assert world.refused == {
        "its charge is not the one written down for it": ("CCCCN",),
        "a conformer without positions": ("CCCF",),
    }


class Evil:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("place", ["geom", "geodiff"])
def test_hostile_pickles_are_refused_by_name_and_run_nothing(tmp_path, place):
    trace = tmp_path / "trace"
    attack = Evil(os.system, f"touch {trace}")
    if place == "geom":
        root = write_rdkit_folder(tmp_path / "f", {s: geom_entry(s, embedded(s, 1), note=attack) for s in GOOD[:2]})
        source = Geom(path=str(root), test_molecules=1)
    else:
        (tmp_path / "evil.pkl").write_bytes(pickle.dumps([attack]))
        source = Geom(path=str(tmp_path / "evil.pkl"))
    with pytest.raises(SourceError, match=r"asks for posix.system, which no file of molecules needs; it was not loaded"):
        draw(source)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(eval), "asks for builtins.eval"),
        (b"cos\nsystem\n(S'true'\ntR.", "asks for os.system"),
        (b"cbuiltins\ngetattr\n.", "asks for builtins.getattr"),
        (b"ctorch.storage\n_load_from_bytes\n(" + b"C" + bytes([len(b := pickle.dumps(Evil(os.system, 'true'), 2))]) + b + b"tR.",
         "is not a readable pickle"),
        (b"crdkit.Chem.rdchem\nMol\n(Vnonsense\ntR.", "is not a readable pickle"),
        (b"Pfoo\n.", "refers to objects outside itself"),
        (pickle.dumps([1, 2, 3])[:-4], "is not a readable pickle"),
        (b"", "is not a readable pickle"),
    ],
)  # fmt: skip
def test_pickles_that_ask_for_more_are_refused(tmp_path, content, message):
    path = tmp_path / "x.pickle"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=message):
        unpickling.load(path)


def test_a_pickle_cannot_change_the_classes_it_names(tmp_path):
    """BUILD on the class itself: sets attributes of whatever the name stands for."""
    path = tmp_path / "x.pickle"
    path.write_bytes(b"\x80\x02crdkit.Chem.rdchem\nMol\n}(X\x0b\x00\x00\x00GetNumAtomsK\x07ub.")
    unpickling.load(path)
    assert Chem.MolFromSmiles("CCO").GetNumAtoms() == 3


def test_numpy_arrays_and_numbers_are_let_through(tmp_path):
    path = tmp_path / "x.pickle"
    for protocol in (2, 4):
        path.write_bytes(pickle.dumps({"x": np.arange(6.0).reshape(2, 3), "n": np.float64(2.5)}, protocol=protocol))
        found = unpickling.load(path)
        assert found["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert found["n"] == 2.5


def test_the_identity_is_the_content(folder, tmp_path):
    source = Geom(path=str(folder), test_molecules=2)
    one = digest(source)
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    assert digest(Geom(path=str(moved), test_molecules=2)) == one
    assert digest(Geom(path=str(moved), test_molecules=3)) != one
    assert digest(Geom(path=str(moved), test_molecules=2, hydrogens=False)) != one
    entry = geom_entry(GOOD[0], embedded(GOOD[0], seed=9))
    (moved / "drugs" / "0.pickle").write_bytes(pickle.dumps(entry))
    assert digest(Geom(path=str(moved), test_molecules=2)) != one


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(SourceError, match=r"source.path is not set"):
        draw(Geom())
    with pytest.raises(SourceError, match="there is nothing at"):
        draw(Geom(path=str(tmp_path / "no")))
    with pytest.raises(SourceError, match=r"has no summary_drugs.json"):
        draw(Geom(path=str(tmp_path)))
    (tmp_path / "summary_drugs.json").write_text("{")
    with pytest.raises(SourceError, match="is not valid JSON"):
        draw(Geom(path=str(tmp_path)))
    (tmp_path / "summary_drugs.json").write_text("{}")
    with pytest.raises(SourceError, match="has 0 training molecules that can be used"):
        draw(Geom(path=str(tmp_path)))
    with pytest.raises(SourceError, match="goes with pickles"):
        draw(Geom(path=str(tmp_path), test_path=str(tmp_path)))
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(SourceError, match="must hold a list of records, but it holds a dict"):
        draw(Geom(path=str(tmp_path / "x.pkl")))
    for wrong, message in (({"conformers": 0}, "conformers"), ({"test_fraction": 1.0}, "test_fraction")):
        with pytest.raises(StudyError, match=message):
            Geom(**wrong)

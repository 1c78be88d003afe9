"""GEOM (Axelrod and Gomez-Bombarelli, 2022): the distributed rdkit_folder, and GeoDiff's preprocessed pickles."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from refeed.core import progress
from refeed.core.errors import SourceError, StudyError
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.families.molecules import cache, chemistry, unpickling, worlds
from refeed.families.molecules.chemistry import Graph, Refused
from refeed.families.molecules.graphs import Molecules
from refeed.families.molecules.source import said, warn
from refeed.families.molecules.worlds import MoleculeWorld

HINT = "Name GEOM's rdkit_folder (with summary_drugs.json) or a pickle of GeoDiff's: --set source.path=..."
Reader = Callable[[], list[tuple[Any, np.ndarray | None]]]  # conformers as RDKit molecules, with positions where those lie apart
Entries = dict[str, Reader]  # by the molecules' identities
Refusals = dict[str, list[str]]  # names by reason
Found = tuple[Graph, list[np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class Geom:
    """Conformers of GEOM: `path` is its `rdkit_folder`, or one of GeoDiff's pickles (`train_data_40k.pkl`, ...).

    Pickles are read by an allow-list and never run anything. `subset`: "drugs" or "qm9", in an rdkit_folder. The `conformers` of
    largest Boltzmann weight of each molecule, or as many as it has (in GeoDiff's pickles: the first in the file). `molecules` and
    `test_molecules` limit their number; without the latter a `test_fraction` of the molecules is held out. Split by molecule, by
    hash of its SMILES without stereochemistry; with `test_path`, a second pickle of GeoDiff's, that file is held out instead, and
    training molecules that occur in it are dropped. What cannot serve is named and counted: molecules that RDKit refuses, atoms
    outside the allowed set, charges or graphs that contradict the SMILES, missing files and conformers. The identity is the
    content.
    """

    path: str = ""
    test_path: str = ""
    subset: Literal["drugs", "qm9"] = "drugs"
    molecules: int | None = None
    test_molecules: int | None = None
    test_fraction: float = 0.1
    conformers: int = 5
    hydrogens: bool = True
    rebuilds: ClassVar[bool] = False
    random: ClassVar[bool] = False
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name in ("molecules", "test_molecules", "conformers"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise StudyError(f"source.{name} must be at least 1, not {value}")
        if not 0 < self.test_fraction < 1:
            raise StudyError(f"source.test_fraction must lie between 0 and 1, not be {self.test_fraction}")

    @property
    def num_rows(self) -> int:
        return len(self._world().train)

    def identity(self) -> dict[str, object]:
        return {"content": cache.content(self._world()), "hydrogens": self.hydrogens}

    def draw(self, *, seed: Seed) -> MoleculeWorld:
        return self._world()

    def load(self, folder: Path, *, train: Rows, test: Rows) -> MoleculeWorld:
        return worlds.load(folder, train=train, test=test)

    def _world(self) -> MoleculeWorld:
        if not self.path:
            raise SourceError("source.path is not set", hint=HINT)
        paths = [Path(path) for path in (self.path, self.test_path) if path]
        for path in paths:
            if not path.exists():
                raise SourceError(f"there is nothing at {path}", hint=HINT)
        if self.test_path and (paths[0].is_dir() or paths[1].is_dir()):
            raise SourceError("source.test_path goes with pickles of GeoDiff's, not with an rdkit_folder", hint="Leave it out.")
        options = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("path", "test_path")}
        return cache.world("geom", {"files": [_state(path) for path in paths], "version": self.version} | options, self._make)

    def _make(self) -> MoleculeWorld:
        refused: dict[str, list[str]] = {}
        with chemistry.quiet():
            entries = self._entries(self.path, refused)
            if self.test_path:
                held_out = self._entries(self.test_path, refused)
                for name in sorted(set(entries) & set(held_out)):
                    refused.setdefault("it is held out too", []).append(name)
                    del entries[name]
                test = self._take(iter(held_out.items()), self.test_molecules, refused)
                train = self._take(iter(entries.items()), self.molecules, refused)
            else:
                pending = iter([(name, entries[name]) for name in worlds.by_hash(list(entries))])
                test = self._take(pending, self.test_molecules or self._held_out(len(entries)), refused)
                train = self._take(pending, self.molecules, refused)
        for part, wanted, found in (("training", self.molecules, train), ("held-out", self.test_molecules, test)):
            if not found or (wanted is not None and len(found) < wanted):
                fewer = "" if wanted is None else f", fewer than the {wanted} that were asked for"
                raise SourceError(
                    f"{self.path} has {len(found)} {part} molecules that can be used{fewer}{said(refused)}",
                    hint="Ask for fewer, or name another file.",
                )
        warn(refused, len(train) + len(test), self.path)
        rows = []
        for first, taken in ((0, train), (len(train), test)):
            pairs = [(first + number, x) for number, (_, positions) in enumerate(taken) for x in positions]
            rows.append(worlds.rows_of([number for number, _ in pairs], [x for _, x in pairs]))
        molecules = Molecules.of([graph for graph, _ in (*train, *test)], hydrogens=self.hydrogens)
        return MoleculeWorld(
            train=rows[0], test=rows[1], molecules=molecules, refused={r: tuple(names) for r, names in refused.items()}
        )

    def _held_out(self, num_molecules: int) -> int:
        share = self.test_fraction
        return max(1, round(share * num_molecules if self.molecules is None else self.molecules * share / (1 - share)))

    def _entries(self, path: str, refused: Refusals) -> Entries:
        where = Path(path)
        return _folder(where, self.subset, refused) if where.is_dir() else _geodiff(where, refused)

    def _take(self, pending: Iterator[tuple[str, Reader]], limit: int | None, refused: Refusals) -> list[Found]:
        """The first `limit` of the pending molecules that can be used, or all."""
        taken: list[Found] = []
        while (limit is None or len(taken) < limit) and (entry := next(pending, None)) is not None:
            name, read = entry
            try:
                taken.append(self._one(name, read(), refused))
            except Refused as reason:
                refused.setdefault(str(reason), []).append(name)
            progress.tick(len(taken), limit or len(taken) + 1, "molecules")
        return taken

    def _one(self, name: str, mols: list[tuple[Any, np.ndarray | None]], refused: Refusals) -> Found:
        """The graph of a molecule and its conformers' positions, after every check."""
        made: Graph | None = None
        found: list[np.ndarray] = []
        for mol, positions in mols:
            if len(found) == self.conformers:
                break
            chemistry.check(mol)
            graph, kept = chemistry.graph(mol, hydrogens=self.hydrogens)
            if made is None and graph[0] != name:
                raise Refused("its graph is not that of its SMILES")
            if positions is None and not mol.GetNumConformers():
                refused.setdefault("a conformer without positions", []).append(name)
                continue
            x = mol.GetConformer().GetPositions() if positions is None else positions
            if np.shape(x) != (mol.GetNumAtoms(), 3) or not np.isfinite(x).all():
                refused.setdefault("a conformer whose positions are not three finite numbers an atom", []).append(name)
            elif made is not None and any(not np.array_equal(a, b) for a, b in zip(graph[1:], made[1:], strict=True)):
                refused.setdefault("a conformer whose atoms or bonds differ from the first one's", []).append(name)
            else:
                made = graph if made is None else made
                found.append(np.asarray(x, dtype=np.float32)[kept])
        if made is None:
            raise Refused("it has no conformers")
        return made, found


def _folder(root: Path, subset: str, refused: Refusals) -> Entries:
    """The molecules of an rdkit_folder, by its summary."""
    summary = root / f"summary_{subset}.json"
    try:
        listed = json.loads(summary.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourceError(f"{root} has no {summary.name}", hint=HINT) from None
    except ValueError as error:
        raise SourceError(f"{summary} is not valid JSON: {error}") from None
    if not isinstance(listed, dict):
        raise SourceError(f"{summary} must map SMILES to entries, but it holds a {type(listed).__name__}")
    entries: Entries = {}
    for smiles, about in listed.items():
        try:
            name = chemistry.key(chemistry.parse(smiles))
            place = about.get("pickle_path") if isinstance(about, dict) else None
            if not isinstance(place, str):
                raise Refused("the summary names no pickle for it")
            path = (root / place).resolve()
            if not path.is_relative_to(root.resolve()):
                raise Refused("its pickle would lie outside the folder")
        except Refused as reason:
            refused.setdefault(str(reason), []).append(smiles)
            continue
        if name in entries:  # a stereoisomer: another molecule to GEOM, the same graph to a model of distances
            refused.setdefault("a stereoisomer of it is there already", []).append(smiles)
            continue
        entries[name] = partial(_read_rdkit, path, about.get("charge"))
    return entries


def _read_rdkit(path: Path, charge: Any) -> list[tuple[Any, np.ndarray | None]]:
    """The conformers of one pickle of an rdkit_folder, heaviest first."""
    if not path.is_file():
        raise Refused("its pickle is missing")
    record = unpickling.load(path)
    listed = record.get("conformers") if isinstance(record, dict) else None
    if not isinstance(listed, list) or not listed:
        raise Refused("its pickle lists no conformers")
    listed = [c for c in listed if isinstance(c, dict) and _is_mol(c.get("rd_mol"))]
    if not listed:
        raise Refused("its pickle holds no RDKit molecules")
    listed.sort(key=lambda conformer: -float(conformer.get("boltzmannweight") or 0))
    for said_charge in (charge, record.get("charge")):
        _check_charge(listed[0]["rd_mol"], said_charge)
    return [(conformer["rd_mol"], None) for conformer in listed]


def _geodiff(path: Path, refused: Refusals) -> Entries:
    """The molecules of a list of PyTorch Geometric records, one a conformer, as GeoDiff's preprocessing leaves them."""
    records = unpickling.load(path)
    if not isinstance(records, list):
        raise SourceError(f"{path} must hold a list of records, but it holds a {type(records).__name__}", hint=HINT)
    groups: dict[str, list[tuple[Any, np.ndarray | None]]] = {}
    names: dict[str, str | None] = {}
    for number, record in enumerate(records):
        fields = _fields(record)
        smiles = str(fields.get("smiles", f"record {number}"))
        mol: Any = fields.get("rdmol")
        if smiles not in names:
            try:
                names[smiles] = chemistry.key(chemistry.parse(smiles))
            except Refused as reason:
                refused.setdefault(str(reason), []).append(smiles)
                names[smiles] = None
        name = names[smiles]
        if name is None:
            continue
        numbers = fields.get("atom_type")
        if not _is_mol(mol):
            refused.setdefault("a record without an RDKit molecule", []).append(smiles)
        elif numbers is None or [int(z) for z in np.ravel(numbers)] != [atom.GetAtomicNum() for atom in mol.GetAtoms()]:
            refused.setdefault("a record whose atoms are not those of its RDKit molecule", []).append(smiles)
        elif fields.get("pos") is None:
            refused.setdefault("a conformer without positions", []).append(smiles)
        else:
            groups.setdefault(name, []).append((mol, np.asarray(fields["pos"], dtype=float)))
    return {name: partial(_checked, group, name) for name, group in groups.items()}


def _checked(group: list[tuple[Any, np.ndarray | None]], name: str) -> list[tuple[Any, np.ndarray | None]]:
    _check_charge(group[0][0], None, name)
    return group


def _check_charge(mol: Any, said_charge: Any, smiles: str = "") -> None:
    """Refuse a molecule whose atoms carry another charge than was written down for it."""
    from rdkit import Chem

    if smiles:
        said_charge = Chem.GetFormalCharge(chemistry.parse(smiles))
    if said_charge is not None and int(said_charge) != Chem.GetFormalCharge(mol):
        raise Refused("its charge is not the one written down for it")


def _fields(record: Any) -> dict[str, Any]:
    """What a record holds: of PyTorch Geometric 1 directly, of 2 in its store."""
    fields = getattr(record, "fields", None)
    if not isinstance(fields, dict):
        return {}
    store = getattr(fields.get("_store"), "fields", fields)
    return dict(store.get("_mapping", store)) if isinstance(store, dict) else {}


def _is_mol(thing: Any) -> bool:
    from rdkit import Chem

    return isinstance(thing, Chem.Mol)


def _state(path: Path) -> list[object]:
    """What shows that files have changed: names, sizes and times of change."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [(file.relative_to(path).as_posix(), file.stat()) for file in files if file.is_file()]
    listed = "\n".join(f"{name}\t{stat.st_size}\t{stat.st_mtime_ns}" for name, stat in stats)
    return [str(path.resolve()), len(stats), sha256(listed.encode()).hexdigest()]

"""Drug-like molecules with conformers made by RDKit: the frozen list that comes with refeed, or any file of SMILES."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b, sha256
from importlib import resources
from pathlib import Path
from typing import ClassVar

import numpy as np

from refeed.core import progress
from refeed.core.errors import SourceError, StudyError
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.families.molecules import cache, chemistry, worlds
from refeed.families.molecules.graphs import Molecules
from refeed.families.molecules.worlds import MoleculeWorld

log = logging.getLogger("refeed")


@dataclass(frozen=True, kw_only=True)
class Conformers:
    """`conformers` each of `molecules` drug-like molecules, and of `test_molecules` held-out ones: ETKDGv3, then MMFF94.

    `path`: a file of SMILES, one a line (what follows a blank is a name), or CSV with a column `smiles`; without it, the 401
    molecules of the frozen list. Split by molecule (canonical SMILES without stereochemistry), by hash: no molecule is on both
    sides, order and doublets do not matter. A molecule that RDKit refuses is named, counted, and replaced by the next.
    `hydrogens`: keep them; losses with and without them are different quantities and cannot be compared. Made once, then read
    from the cache; the identity is the molecules and RDKit's version, not the path.
    """

    path: str = ""
    molecules: int = 200
    test_molecules: int = 60
    conformers: int = 2
    hydrogens: bool = False
    rebuilds: ClassVar[bool] = False
    random: ClassVar[bool] = False
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name in ("molecules", "test_molecules", "conformers"):
            if getattr(self, name) < 1:
                raise StudyError(f"source.{name} must be at least 1, not {getattr(self, name)}")

    @property
    def num_rows(self) -> int:
        return self.molecules * self.conformers

    def identity(self) -> dict[str, object]:
        from rdkit import rdBase

        fields = {name: getattr(self, name) for name in ("molecules", "test_molecules", "conformers", "hydrogens")}
        return fields | {"content": self._listed().content, "rdkit": rdBase.rdkitVersion}

    def draw(self, *, seed: Seed) -> MoleculeWorld:
        return cache.world("conformers", self.identity(), self._make)

    def load(self, folder: Path, *, train: Rows, test: Rows) -> MoleculeWorld:
        return worlds.load(folder, train=train, test=test)

    def _listed(self) -> Listed:
        listed = read_smiles(self.path)
        wanted = self.molecules + self.test_molecules
        if len(listed.smiles) < wanted:
            raise SourceError(
                f"{self.path or 'the frozen list'} has {len(listed.smiles)} molecules that can be used, fewer than "
                f"source.molecules + source.test_molecules = {wanted}{said(listed.refused)}",
                hint=f"Type: --set source.molecules={max(1, len(listed.smiles) - self.test_molecules)}, or name a longer list.",
            )
        return listed

    def _make(self) -> MoleculeWorld:
        listed = self._listed()
        refused = {reason: list(names) for reason, names in listed.refused.items()}
        wanted = self.molecules + self.test_molecules
        graphs: list[chemistry.Graph] = []
        positions: list[list[np.ndarray]] = []
        with chemistry.quiet():
            for name in worlds.by_hash(list(listed.smiles)):
                if len(graphs) == wanted:
                    break
                try:
                    number = int.from_bytes(blake2b(name.encode(), digest_size=4).digest(), "little") >> 1
                    made, found = chemistry.conformers(
                        chemistry.parse(listed.smiles[name]), self.conformers, seed=number, hydrogens=self.hydrogens
                    )
                except chemistry.Refused as reason:
                    refused.setdefault(str(reason), []).append(listed.smiles[name])
                    continue
                graphs.append(made)
                positions.append(found)
                progress.tick(len(graphs), wanted, "molecules")
        if len(graphs) < wanted:
            raise SourceError(
                f"only {len(graphs)} of the {wanted} molecules that were asked for have conformers{said(refused)}",
                hint=f"Type: --set source.molecules={max(1, len(graphs) - self.test_molecules)}",
            )
        warn(refused, len(listed.smiles), self.path or "the frozen list")
        cut = self.test_molecules
        parts = [[(number, p) for number in range(*limits) for p in positions[number]] for limits in ((cut, wanted), (0, cut))]
        train, test = (worlds.rows_of([n for n, _ in part], [p for _, p in part]) for part in parts)
        molecules = Molecules.of(graphs, hydrogens=self.hydrogens)
        return MoleculeWorld(train=train, test=test, molecules=molecules, refused={r: tuple(n) for r, n in refused.items()})


@dataclass(frozen=True, eq=False)
class Listed:
    """The molecules of a file by their identity, each as the file first writes it; and what cannot be used, by reason."""

    smiles: dict[str, str]
    refused: dict[str, tuple[str, ...]]
    content: str


def read_smiles(path: str) -> Listed:
    """The molecules of a file of SMILES, or of the frozen list."""
    if not path:
        return _read(resources.files("refeed.families.molecules").joinpath("smiles.txt").read_bytes(), "smiles.txt")
    try:
        return _read(Path(path).read_bytes(), path)
    except OSError as error:
        raise SourceError(
            f"{path} cannot be read: {error.strerror}", hint="Name a file of SMILES: --set source.path=molecules.smi"
        ) from None


@lru_cache(maxsize=4)
def _read(content: bytes, name: str) -> Listed:
    lines = content.decode("utf-8", errors="replace").splitlines()
    found: dict[str, str] = {}
    refused: dict[str, list[str]] = {}
    with chemistry.quiet():
        for smiles in _column(lines, name):
            try:
                found.setdefault(chemistry.key(chemistry.parse(smiles)), smiles)
            except chemistry.Refused as reason:
                refused.setdefault(str(reason), []).append(smiles)
    if not found:
        raise SourceError(
            f"{name} holds no molecule that can be used{said(refused)}", hint="One SMILES a line, or a column smiles."
        )
    text = "\n".join(f"{key}\t{found[key]}" for key in sorted(found))
    return Listed(found, {r: tuple(n) for r, n in refused.items()}, sha256(text.encode()).hexdigest())


def _column(lines: Sequence[str], name: str) -> list[str]:
    if name.endswith(".csv"):
        rows = csv.DictReader(lines)
        column = next((field for field in rows.fieldnames or () if field.strip().lower() == "smiles"), None)
        if column is None:
            raise SourceError(f"{name} has no column smiles, only {', '.join(rows.fieldnames or ()) or 'nothing'}")
        return [row[column].strip() for row in rows if (row[column] or "").strip()]
    return [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]


def said(refused: dict[str, list[str]] | dict[str, tuple[str, ...]]) -> str:
    """`; 3 left out: it holds atoms outside ... (2, such as ...); ...`, or nothing."""
    if not refused:
        return ""
    parts = [f"{reason} ({len(names)}, such as {names[0][:60]})" for reason, names in refused.items()]
    return f"; {sum(map(len, refused.values()))} left out: {'; '.join(parts)}"


def warn(refused: dict[str, list[str]], total: int, where: str) -> None:
    if refused:
        log.warning("%s: %d molecules can be used%s.", where, total, said(refused))

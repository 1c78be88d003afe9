"""What people see: conformers of the same molecules in every generation, and how bonds and torsions are distributed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from refeed.core.rows import Rows
from refeed.families.molecules import chemistry, drawing, metrics
from refeed.families.molecules.graphs import Molecules
from refeed.families.molecules.worlds import MoleculeWorld, positions_of

if TYPE_CHECKING:
    from refeed.families.molecules.model import ConformerModel

SHOWN = 5  # molecules that are followed through the generations
BONDS = np.linspace(0.8, 2.4, 81)  # Angstrom
TORSIONS = np.linspace(0, 180, 37)  # degrees, without sign: a model of distances cannot tell mirror images apart


def conformers(rows: Rows, *, world: MoleculeWorld, count: int) -> list[str]:
    """The first conformers of the first `count` molecules."""
    first = np.unique(rows["molecule"], return_index=True)[1]
    return [picture(world, rows, int(row)) for row in np.sort(first)[:count]]


def portrait(model: ConformerModel | None, *, world: MoleculeWorld, rows: Rows) -> dict[str, list[str]]:
    """The same molecules as in every generation, turned onto their real conformers, and distributions beside the real ones."""
    made = metrics.judged("portrait", rows, world)
    return {
        "the same molecules": followed(world, made),
        "bonds, torsions and coverage": distributions(world, made, real=model is None),
    }


def followed(world: MoleculeWorld, made: Rows) -> list[str]:
    """The first row of each of a few molecules, evenly spaced through the data."""
    first = np.sort(np.unique(world.given, return_index=True)[1])
    chosen = first[np.unique(np.linspace(0, len(first) - 1, SHOWN).astype(int))]
    return [picture(world, made, int(row)) for row in chosen if row < len(made)]


def picture(world: MoleculeWorld, rows: Rows, row: int) -> str:
    """One row, turned as its molecule's first real training conformer lies in its principal axes."""
    number = int(rows["molecule"][row])
    x = positions_of(rows)[row].astype(float)
    x = x - x.mean(axis=0)
    view, extent = np.eye(3), float(np.abs(x).max(initial=1.0))
    real = world.real_of.get(number)
    if real is not None:
        y = positions_of(world.train)[int(real[0])].astype(float)
        y = y - y.mean(axis=0)
        u, _, vt = np.linalg.svd(x.T @ y)
        u[:, 2] *= np.sign(np.linalg.det(u) * np.linalg.det(vt))
        x = x @ u @ vt
        view = np.linalg.svd(y, full_matrices=False)[2].T
        extent = 1.12 * float(np.abs(y @ view).max())
    return drawing.conformer(x, world.molecules.atoms[number], world.molecules.bonds[number], view=view, extent=extent)


def distributions(world: MoleculeWorld, made: Rows, *, real: bool) -> list[str]:
    """Bond lengths, torsion angles of rotatable bonds, and COV over the threshold: real grey, samples blue."""
    drawn = []
    for title, of, edges, ticks, unit in (
        ("bond lengths", bond_lengths, BONDS, (0.8, 1.2, 1.6, 2.0, 2.4), "Angstrom"),
        ("torsions of rotatable bonds", torsion_angles, TORSIONS, (0, 60, 120, 180), "degrees, without sign"),
    ):
        middle = (edges[1:] + edges[:-1]) / 2
        shape, here = (_shares(of(world.molecules, rows), edges) for rows in (world.train, made))
        lines = [(shape, drawing.REAL, True)] + ([] if real else [(here, drawing.MADE, False)])
        drawn.append(drawing.plot(title, middle, lines, top=1.25 * max(float(shape.max()), 1e-9), ticks=ticks, unit=unit))
    recall, precision = metrics.nearest(world, None if real else made)
    if recall:
        curves = [
            (metrics.covered(part, metrics.SWEEP), colour, False) for part, colour in ((recall, "#0072b2"), (precision, "#d55e00"))
        ]
        title = "COV: recall blue, precision red"
        drawn.append(drawing.plot(title, metrics.SWEEP, curves, top=1.05, ticks=(0.05, 1.25, 3), unit="threshold, Angstrom"))
    return drawn


def _shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The share of values in each bin; those outside count in the whole."""
    return np.asarray(np.histogram(values, edges)[0] / max(1, len(values)))


def bond_lengths(molecules: Molecules, rows: Rows) -> np.ndarray:
    """Every bond's length in every row, Angstrom."""
    found = [np.zeros(0)]
    for number, x in zip(rows["molecule"].tolist(), positions_of(rows), strict=True):
        i, j = molecules.bonds[number][:, :2].T.astype(np.int64)
        found.append(np.linalg.norm(x[i] - x[j], axis=1))
    return np.concatenate(found)


def torsion_angles(molecules: Molecules, rows: Rows) -> np.ndarray:
    """The angle about every rotatable bond in every row: 0 to 180 degrees, without sign."""
    found = [np.zeros(0)]
    for number, x in zip(rows["molecule"].tolist(), positions_of(rows), strict=True):
        a, b, c, d = x[molecules.torsions[number].T.astype(np.int64)].astype(float)
        axis = (c - b) / np.maximum(np.linalg.norm(c - b, axis=1, keepdims=True), 1e-9)
        before, after = (v - (v * axis).sum(axis=1, keepdims=True) * axis for v in (a - b, d - c))
        norms = np.maximum(np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1), 1e-12)
        found.append(np.degrees(np.arccos(np.clip((before * after).sum(axis=1) / norms, -1, 1))))
    return np.concatenate(found)


def decode(rows: Rows, *, folder: Path) -> dict[str, list[Any]]:
    """The molecule of every row, by the graphs kept with the real data in `folder`: its SMILES and its atoms in order."""
    molecules = Molecules.load(folder / "molecules.npz")
    numbers = rows["molecule"].tolist()
    elements = [[chemistry.ELEMENTS[int(z)] for z in atoms] for atoms in molecules.atoms]
    return {"smiles": [molecules.smiles[n] for n in numbers], "elements": [elements[n] for n in numbers]}

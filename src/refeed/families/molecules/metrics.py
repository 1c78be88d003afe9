"""What is measured of a model of conformers: its losses on real ones, and its samples against the real ones of the same molecules.

Metrics of samples judge the first N of them, N the number of real training rows, so that every molecule has as many samples as it
has real conformers. Quantities ending in `_real` say the same of each molecule's real conformers against its other real ones: a
yardstick, from one conformer fewer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from refeed.core.errors import StudyError
from refeed.core.protocols import Quantity, with_real
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.families.molecules import chemistry
from refeed.families.molecules.worlds import MoleculeWorld, positions_of

if TYPE_CHECKING:
    from refeed.families.molecules.model import ConformerModel

SWEEP = np.arange(1, 61) * 0.05  # Angstrom
LONGEST_BOND = 1.3  # times the sum of covalent radii
CLASH = 0.75  # times the sum of van der Waals radii


@dataclass(frozen=True, kw_only=True)
class DenoisingLoss:
    """The published losses on held-out real conformers: local (up to three bonds apart), global (the others), and their sum.

    Mean over atoms. Every conformer is perturbed at one level of each of `strata` equal parts of the noise levels, with noise that
    is the same for every model: differences between models are exact. `_zero`: the loss of a model that answers 0 to everything, at
    which a collapsed part of the network stands.
    """

    strata: int = 10
    name: ClassVar[str] = "denoising_loss"
    needs: ClassVar[frozenset[str]] = frozenset({"distance_loss"})
    quantities: ClassVar[tuple[Quantity, ...]] = tuple(
        quantity
        for part, meaning in (
            ("local", "loss on pairs up to three bonds apart, held-out real conformers"),
            ("global", "loss on pairs further apart, within the cutoff"),
            ("total", "local + global"),
        )
        for quantity in (
            Quantity(name=f"{part}_loss", role="risk", reference=f"{part}_loss_zero", meaning=meaning),
            Quantity(name=f"{part}_loss_zero", better="neither", role="reference", meaning="the same, of answering 0"),
        )
    )
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _check_strata(self.strata)

    def measure(self, model: ConformerModel, *, world: MoleculeWorld, samples: Rows | None, seed: Seed) -> dict[str, float]:
        model.check(world.molecules)
        result: dict[str, float] = {}
        for ending, zero in (("", False), ("_zero", True)):
            local, far = model.losses(world.test, world, strata=self.strata, zero=zero).mean(axis=0)
            result |= {f"local_loss{ending}": local, f"global_loss{ending}": far, f"total_loss{ending}": local + far}
        return {name: float(value) for name, value in result.items()}


@dataclass(frozen=True, kw_only=True)
class AlignedLoss:
    """The loss of the aligned objective on held-out real conformers, mean over atoms, at fixed noise and `strata` parts of the
    levels.

    `_zero`: of a model that answers 0. It is one loss: local and global parts have no targets of their own.
    """

    strata: int = 10
    name: ClassVar[str] = "aligned_loss"
    needs: ClassVar[frozenset[str]] = frozenset({"aligned_loss"})
    quantities: ClassVar[tuple[Quantity, ...]] = (
        Quantity(name="aligned_loss", role="risk", reference="aligned_loss_zero", meaning="loss on held-out real conformers"),
        Quantity(name="aligned_loss_zero", better="neither", role="reference", meaning="the same, of answering 0"),
    )
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _check_strata(self.strata)

    def measure(self, model: ConformerModel, *, world: MoleculeWorld, samples: Rows | None, seed: Seed) -> dict[str, float]:
        model.check(world.molecules)
        found = {"aligned_loss": False, "aligned_loss_zero": True}
        return {n: float(model.losses(world.test, world, strata=self.strata, zero=zero).mean()) for n, zero in found.items()}


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """COV and MAT (Ganea et al., 2021; Xu et al., 2022), recall and precision, by symmetry-aware RMSD of heavy atoms in Angstrom.

    Of one molecule, recall: COV-R is the share of its real conformers with a sample within `threshold`, MAT-R the mean distance
    of a real conformer to its nearest sample. Precision: the same with the parts exchanged. Means over molecules. `_sweep`: COV
    averaged over thresholds 0.05, 0.10, ..., 3. A mirror image is another conformer; the model itself cannot tell the two apart.
    """

    threshold: float = 1.25
    name: ClassVar[str] = "coverage"
    needs: ClassVar[frozenset[str]] = frozenset({"samples"})
    quantities: ClassVar[tuple[Quantity, ...]] = with_real(
        ("cov_recall", "1", "higher", "diversity", "share of real conformers with a sample near"),
        ("mat_recall", "Angstrom", "lower", "diversity", "mean RMSD of a real conformer to its nearest sample"),
        ("cov_recall_sweep", "1", "higher", "diversity", "cov recall, mean over thresholds up to 3 Angstrom"),
        ("cov_precision", "1", "higher", "quality", "share of samples with a real conformer near"),
        ("mat_precision", "Angstrom", "lower", "quality", "mean RMSD of a sample to its nearest real conformer"),
        ("cov_precision_sweep", "1", "higher", "quality", "cov precision, mean over thresholds up to 3 Angstrom"),
        real="other real ones",
    )
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not self.threshold > 0:
            raise StudyError(f"the coverage metric's threshold is a distance in Angstrom above 0, not {self.threshold}")

    def measure(self, model: ConformerModel, *, world: MoleculeWorld, samples: Rows | None, seed: Seed) -> dict[str, float]:
        result: dict[str, float] = {}
        made = judged(self.name, samples, world)
        for ending, found in (("", nearest(world, made)), ("_real", nearest(world, None))):
            for part, distances in zip(("recall", "precision"), found, strict=True):
                if distances:
                    result[f"cov_{part}{ending}"] = covered(distances, np.array([self.threshold]))[0]
                    result[f"mat_{part}{ending}"] = np.mean([of_molecule.mean() for of_molecule in distances])
                    result[f"cov_{part}_sweep{ending}"] = covered(distances, SWEEP).mean()
        return {name: float(value) for name, value in result.items()}


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Samples as molecules: lengths of bonds, distances across one atom (1-3), and whether a conformer could be one at all.

    Errors: mean |distance in a sample - mean of that distance over the molecule's real conformers|, in Angstrom. `finite`: the
    share of samples that needed no second try with clipped scores. `connected`: no bond longer than 1.3 times the sum of covalent
    radii. `clash_free`: no two atoms more than three bonds apart nearer than 0.75 times the sum of van der Waals radii.
    """

    name: ClassVar[str] = "geometry"
    needs: ClassVar[frozenset[str]] = frozenset({"samples"})
    quantities: ClassVar[tuple[Quantity, ...]] = (
        *with_real(
            ("bond_error", "Angstrom", "lower", "quality", "mean error of bond lengths in samples"),
            ("one_three_error", "Angstrom", "lower", "quality", "mean error of distances between atoms two bonds apart"),
            ("connected", "1", "higher", "quality", "share of samples in which no bond is torn"),
            ("clash_free", "1", "higher", "quality", "share of samples in which no two distant atoms overlap"),
            real="other real ones",
        ),
        Quantity(name="finite", better="higher", role="audit", meaning="share of samples finite at the first try"),
        Quantity(
            name="retried",
            better="lower",
            meaning="share of samples made again with clipped scores",
            notice="of the sampled conformers were NaN at first and were sampled again with clipped scores",
        ),
    )
    version: ClassVar[int] = 1

    def measure(self, model: ConformerModel, *, world: MoleculeWorld, samples: Rows | None, seed: Seed) -> dict[str, float]:
        made = judged(self.name, samples, world)
        retried = float(made["retried"].mean()) if "retried" in made.names else 0.0
        result = {"retried": retried, "finite": 1 - retried}
        for ending, rows in (("", made), ("_real", world.train)):
            bonds, across = distance_errors(world, rows, apart=ending == "_real")
            result |= {f"bond_error{ending}": bonds, f"one_three_error{ending}": across} if np.isfinite(bonds) else {}
            result |= {f"{name}{ending}": value for name, value in sound(world, rows).items()}
        return result


def judged(metric: str, samples: Rows | None, world: MoleculeWorld) -> Rows:
    """The samples that a metric looks at."""
    if samples is None or not len(samples):
        raise StudyError(f"metric {metric!r} needs sampled conformers, but the policy samples none")
    return samples.take(np.arange(min(len(samples), len(world.train))))


def of_molecules(world: MoleculeWorld, made: Rows) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Each molecule that has both: its number, the rows of `made`, its real training rows."""
    numbers = made["molecule"]
    for number, real in world.real_of.items():
        rows = np.flatnonzero(numbers == number)
        if len(rows):
            yield number, rows, real


def nearest(world: MoleculeWorld, made: Rows | None) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """By molecule, the RMSD of each real conformer to its nearest sample, and of each sample to its nearest real conformer.

    Without samples, of each real conformer to the nearest other one, in both places; molecules with one conformer are left out.
    """
    recall, precision = [], []
    for number, rows, real in of_molecules(world, world.train if made is None else made):
        references = [positions_of(world.train)[row] for row in real]
        if made is not None:
            table = chemistry.rmsds(world.molecules, number, [positions_of(made)[row] for row in rows], references)
        elif len(real) > 1:
            table = chemistry.rmsds(world.molecules, number, references, references)
            np.fill_diagonal(table, np.inf)
        else:
            continue
        recall.append(table.min(axis=0))
        precision.append(table.min(axis=1))
    return recall, precision


def covered(distances: list[np.ndarray], thresholds: np.ndarray) -> np.ndarray:
    """The share of distances at most each threshold, mean over molecules."""
    return np.asarray(np.mean([(d[:, None] <= thresholds).mean(axis=0) for d in distances], axis=0))


def distance_errors(world: MoleculeWorld, made: Rows, *, apart: bool = False) -> tuple[float, float]:
    """Mean errors of bond lengths and of 1-3 distances; with `apart`, of real rows against the molecule's other real rows."""
    totals = [np.zeros(0), np.zeros(0)]
    for number, rows, real in of_molecules(world, made):
        if apart and len(real) < 2:
            continue
        pairs = (world.molecules.bonds[number][:, :2], world.molecules.one_three[number])
        for place, (i, j) in enumerate(part.T.astype(np.int64) for part in pairs):
            here, there = (
                np.stack([np.linalg.norm(of[row][i] - of[row][j], axis=1) for row in chosen])
                for of, chosen in ((positions_of(made), rows), (positions_of(world.train), real))
            )
            mean = (there.sum(axis=0) - here) / (len(real) - 1) if apart else there.mean(axis=0)
            totals[place] = np.append(totals[place], np.abs(here - mean).ravel())
    bonds, across = (float(errors.mean()) if len(errors) else float("nan") for errors in totals)
    return bonds, across


def sound(world: MoleculeWorld, rows: Rows) -> dict[str, float]:
    """The shares of connected and of clash-free conformers."""
    from rdkit import Chem

    table = Chem.GetPeriodicTable()
    covalent, contact = (np.array([0.0, *(of(z) for z in range(1, 119))]) for of in (table.GetRcovalent, table.GetRvdw))
    connected: list[bool] = []
    clear: list[bool] = []
    for number, x in zip(rows["molecule"].tolist(), positions_of(rows), strict=True):
        atoms, far = world.molecules.atoms[number], world.molecules.pairs[1][number]
        for pairs, radius, answers, allowed in (
            (world.molecules.bonds[number][:, :2], covalent, connected, lambda d, r: d <= LONGEST_BOND * r),
            (far, contact, clear, lambda d, r: d >= CLASH * r),
        ):
            i, j = pairs.T.astype(np.int64)
            lengths = np.linalg.norm(x[i] - x[j], axis=1)
            answers.append(bool(allowed(lengths, radius[atoms[i]] + radius[atoms[j]]).all()))
    return {"connected": float(np.mean(connected)), "clash_free": float(np.mean(clear))}


def _check_strata(strata: int) -> None:
    if strata < 1:
        raise StudyError(f"the loss metric's strata must be at least 1, not {strata}")

"""A fitted model of conformers: the network, its noise levels, and its losses on conformers it has not seen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refeed.core.errors import StudyError
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.families.molecules.diffusion import Batch, aligned_loss, batch_of, distance_losses, noise_levels
from refeed.families.molecules.graphs import Molecules
from refeed.families.molecules.nets import DualEncoder
from refeed.families.molecules.worlds import MoleculeWorld, positions_of

NET = ("hidden", "interactions", "convolutions", "cutoff", "smooth")
LOOK = Seed(0) / "molecules" / "test noise"  # the same noise for every model, so that losses can be compared exactly
ATOMS = 2000  # to a batch where nothing is learnt


def device() -> torch.device:
    """A CUDA device where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def positions_tensor(rows: Rows) -> Tensor:
    """The positions of all atoms of rows, end to end: (N, 3) float32."""
    return torch.from_numpy(positions_of(rows).values.copy()).to(device())


def build(config: dict[str, Any]) -> DualEncoder:
    return DualEncoder(**{name: config[name] for name in NET})


@dataclass(frozen=True, eq=False, kw_only=True)
class ConformerModel:
    """p(positions | graph), as the scores of a diffusion at `levels` noise levels."""

    net: DualEncoder
    config: dict[str, Any]  # the net's sizes, levels, last_beta, objective, hydrogens

    @property
    def sigmas(self) -> np.ndarray:
        """The noise levels in Angstrom, from the least."""
        return noise_levels(self.config["levels"], self.config["last_beta"])

    @property
    def objective(self) -> str:
        return str(self.config["objective"])

    def check(self, molecules: Molecules) -> None:
        """A model of heavy atoms says nothing of graphs with hydrogens, nor the other way round."""
        if molecules.hydrogens != self.config["hydrogens"]:
            raise StudyError(
                f"the model was fitted {'with' if self.config['hydrogens'] else 'without'} hydrogens, the molecules come "
                f"{'with' if molecules.hydrogens else 'without'} them: their losses are different quantities."
            )

    def training_loss(self, batch: Batch, clean_N3: Tensor, noise_N3: Tensor, sigma_G: Tensor) -> Tensor:
        """The loss of each atom, (N,): local + global, or that of the aligned objective."""
        if self.objective == "aligned":
            return aligned_loss(self.net, batch, clean_N3, noise_N3, sigma_G)
        local_N, global_N = distance_losses(self.net, batch, clean_N3, noise_N3, sigma_G, cutoff=self.net.cutoff)
        return local_N + global_N

    def losses(self, rows: Rows, world: MoleculeWorld, *, strata: int, zero: bool = False) -> np.ndarray:
        """Mean over atoms of the losses on conformers: (strata, 2) local and global, or (strata, 1) of the aligned objective.

        Each conformer is perturbed once at a level from each of `strata` equal parts of the levels, with noise that depends on its
        row alone. With `zero`, the losses of a model that answers 0 to everything.
        """
        net = None if zero else self.net
        edges = np.linspace(0, self.config["levels"], strata + 1)
        totals, atoms = np.zeros(1), 0
        for chosen, batch, clean_N3 in batches(rows, world.molecules):
            clean_N3 = clean_N3.to(self._type)
            streams = [(LOOK / int(row)).generator() for row in chosen]
            levels = np.stack([(edges[:-1] + stream.random(strata) * np.diff(edges)).astype(np.int64) for stream in streams])
            lengths = positions_of(rows).lengths[chosen]
            noise = np.concatenate([s.standard_normal((strata, n, 3)) for s, n in zip(streams, lengths, strict=True)], axis=1)
            found = []
            with torch.inference_mode():
                for stratum in range(strata):
                    sigma_G = torch.from_numpy(self.sigmas[levels[:, stratum]]).to(clean_N3)
                    noise_N3 = torch.from_numpy(noise[stratum]).to(clean_N3)
                    if self.objective == "aligned":
                        parts: tuple[Tensor, ...] = (aligned_loss(net, batch, clean_N3, noise_N3, sigma_G),)
                    else:
                        parts = distance_losses(net, batch, clean_N3, noise_N3, sigma_G, cutoff=self.net.cutoff)
                    found.append([float(part.double().sum()) for part in parts])
            totals, atoms = totals + np.array(found), atoms + len(clean_N3)
        return np.asarray(totals) / atoms

    @property
    def _type(self) -> torch.dtype:
        return next(self.net.parameters()).dtype

    def save(self, folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps(self.config, indent=1))
        torch.save({name: tensor.cpu() for name, tensor in self.net.state_dict().items()}, folder / "weights.pt")

    @classmethod
    def load(cls, folder: Path) -> ConformerModel:
        config = json.loads((folder / "config.json").read_text())
        with torch.random.fork_rng(devices=[]):
            net = build(config)
        net.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
        return cls(net=net.to(device()).eval(), config=config)


def batches(rows: Rows, molecules: Molecules, *, atoms: int = ATOMS) -> Iterator[tuple[np.ndarray, Batch, Tensor]]:
    """The rows in batches of about `atoms` atoms, conformers of like size together: their numbers, graphs and positions (N, 3)."""
    for chosen in by_size(positions_of(rows).lengths, atoms=atoms):
        part = rows.take(chosen)
        batch = batch_of(molecules, part["molecule"]).to(device())
        yield chosen, batch, positions_tensor(part)


def by_size(sizes: np.ndarray, *, atoms: int) -> Iterator[np.ndarray]:
    """Row numbers in batches of about `atoms` atoms, the largest first."""
    order = np.argsort(-sizes, kind="stable")
    batch = (np.cumsum(sizes[order]) - 1) // atoms
    yield from np.split(order, np.flatnonzero(np.diff(batch)) + 1) if len(order) else ()

"""GeoDiff (Xu et al., 2022): a diffusion of molecular conformations, fitted from scratch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from refeed.core import progress
from refeed.core.batches import batches
from refeed.core.errors import Stopped, StudyError
from refeed.core.protocols import Data
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.families.molecules.worlds import MoleculeWorld

if TYPE_CHECKING:
    from refeed.families.molecules.model import ConformerModel


@dataclass(frozen=True, kw_only=True)
class GeoDiff:
    """GeoDiff's dual encoder, fitted by Adam to scores of distances.

    `objective = "distance"` is that of the released code: each pair's score is fitted to (true - perturbed length) / sigma, seen
    as vectors at atoms, with a local loss (pairs up to three bonds apart) and a global one (the others within `cutoff` Angstrom).
    `"aligned"` fits the sum of both vectors to (x0 - x) / sigma, x0 turned onto the perturbed x. `hidden`, `interactions`
    (SchNet), `convolutions` (GIN): the network's sizes; `smooth`: a cosine envelope instead of a sharp cutoff. `levels` and
    `last_beta`: the noise levels; see `diffusion.noise_levels`.

    `steps` of `batch` conformers, whatever the training set's size, as the authors did; or `epochs` passes over it, so that n
    times the rows take n times the steps. In a batch, levels come in pairs t and T - 1 - t. `schedule`: "constant"; "cycle" (up
    over a tenth of the steps, down a cosine); or "plateau" (times `decay` once the total loss on the held-out real rows has not
    fallen for `patience` looks, one every `look` steps: as published, so held-out rows steer the learning rate). `clip`: largest
    gradient norm.
    """

    hidden: int = 32
    interactions: int = 3
    convolutions: int = 3
    cutoff: float = 10.0
    smooth: bool = True
    objective: Literal["distance", "aligned"] = "distance"
    levels: int = 1000
    last_beta: float = 9e-3
    steps: int | None = 1200
    epochs: int | None = None
    batch: int = 16
    learning_rate: float = 5e-3
    schedule: Literal["constant", "cycle", "plateau"] = "cycle"
    decay: float = 0.6
    patience: int = 10
    look: int = 500
    clip: float = 3e4
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name in ("hidden", "interactions", "convolutions", "levels", "batch", "patience", "look"):
            if getattr(self, name) < (2 if name in ("hidden", "levels") else 1):
                raise StudyError(f"learner.{name} is too small: {getattr(self, name)}")
        for name in ("cutoff", "learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise StudyError(f"learner.{name} must be more than 0, not {getattr(self, name)}")
        if (self.steps is None) == (self.epochs is None):
            raise StudyError(
                f"learner.steps and learner.epochs exclude each other, but they are {self.steps} and {self.epochs}",
                hint="For constant epochs type: --set \"learner={kind='geodiff-epochs', epochs=50}\"",
            )
        for name in ("steps", "epochs"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise StudyError(f"learner.{name} must be at least 1, not {value}")
        if not 1e-7 < self.last_beta < 1:
            raise StudyError(f"learner.last_beta must lie between 1e-7 and 1, not be {self.last_beta}")
        if not 0 < self.decay <= 1:
            raise StudyError(f"learner.decay must lie in (0, 1], not be {self.decay}")
        for name, known in (("objective", ("distance", "aligned")), ("schedule", ("constant", "cycle", "plateau"))):
            if getattr(self, name) not in known:
                raise StudyError(f"learner.{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({f"{self.objective}_loss", "warm_start", "steps"})

    def fit(self, data: Data, *, world: MoleculeWorld, seed: Seed, start: ConformerModel | None = None) -> ConformerModel:
        import torch

        from refeed.families.molecules import model as models

        names = (*models.NET, "objective", "levels", "last_beta")
        config: dict[str, Any] = {name: getattr(self, name) for name in names} | {"hydrogens": world.molecules.hydrogens}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed((seed / "weights").integer())
            net = models.build(config).to(models.device())
        if start is not None:
            net.load_state_dict(start.net.state_dict())
        model = models.ConformerModel(net=net, config=config)
        self._train(model, data, world, seed)
        net.eval()
        if not all(torch.isfinite(parameter).all() for parameter in net.parameters()):
            raise Stopped("non-finite", "the fitted weights hold NaN or infinite values")
        return model

    def load(self, folder: Path) -> ConformerModel:
        from refeed.families.molecules.model import ConformerModel

        return ConformerModel.load(folder)

    def _train(self, model: ConformerModel, data: Data, world: MoleculeWorld, seed: Seed) -> None:
        import torch

        from refeed.families.molecules.diffusion import batch_of
        from refeed.families.molecules.model import device, positions_tensor

        parts = list(data)
        weight = np.concatenate([np.full(len(rows), weight, dtype=np.float32) for rows, weight in parts])
        weight /= weight.mean()
        rows = Rows.concatenate([rows for rows, _ in parts])
        num_steps = self.steps if self.steps is not None else (self.epochs or 1) * -(-data.visits // self.batch)
        optimizer = torch.optim.Adam(model.net.parameters(), lr=self.learning_rate, betas=(0.95, 0.999), fused=True)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=self.decay, patience=self.patience)
        random = (seed / "levels").generator()
        noise = torch.Generator(device=device()).manual_seed((seed / "noise").integer())
        sigmas = torch.from_numpy(model.sigmas).float().to(device())
        model.net.train()
        for step, chosen in enumerate(batches(len(rows), batch=self.batch, num_steps=num_steps, seed=seed / "order"), start=1):
            if self.schedule == "cycle":
                for group in optimizer.param_groups:
                    group["lr"] = self.learning_rate * cycle(step, num_steps)
            part = rows.take(chosen)
            batch = batch_of(world.molecules, part["molecule"]).to(device())
            clean_N3 = positions_tensor(part)
            sigma_G = sigmas[torch.from_numpy(antithetic(len(chosen), self.levels, random)).to(device())]
            noise_N3 = torch.randn(clean_N3.shape, generator=noise, device=device())
            weight_G = torch.from_numpy(weight[chosen]).to(device())
            loss = (model.training_loss(batch, clean_N3, noise_N3, sigma_G) * weight_G[batch.graph_N]).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.net.parameters(), self.clip)
            optimizer.step()
            if (step % 32 == 0 or step == num_steps) and not math.isfinite(value := loss.item()):
                raise Stopped("diverged", f"the training loss became {value} by step {step} of {num_steps}")
            if self.schedule == "plateau" and step % self.look == 0:
                plateau.step(model.losses(world.test, world, strata=10).sum(axis=1).mean())
            progress.tick(step, num_steps, "steps")


def paper(*, steps: int = 41_000, batch: int = 32, learning_rate: float = 1e-3) -> GeoDiff:
    """The published sizes and optimiser (764,290 parameters): hidden 128, 6 and 4 layers, T = 1000, Adam 1e-3, 41,000 steps."""
    return GeoDiff(
        hidden=128,
        interactions=6,
        convolutions=4,
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        schedule="plateau",
    )


def by_epochs(*, epochs: int = 48, hidden: int = 32, interactions: int = 3, convolutions: int = 3, batch: int = 16) -> GeoDiff:
    """The small network, trained for `epochs` passes over each training set: accumulating then takes n times the steps."""
    return GeoDiff(hidden=hidden, interactions=interactions, convolutions=convolutions, steps=None, epochs=epochs, batch=batch)


def antithetic(number: int, levels: int, random: np.random.Generator) -> np.ndarray:
    """Levels for a batch of `number` conformers, in pairs t and T - 1 - t."""
    first = random.integers(0, levels, size=number // 2 + 1)
    return np.concatenate([first, levels - 1 - first])[:number]


def cycle(step: int, num_steps: int) -> float:
    """The learning rate of a step (from 1) over its peak: linear up over a tenth of the steps, then a cosine to zero."""
    rising = max(1, num_steps // 10)
    if step <= rising:
        return step / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, num_steps - rising)))

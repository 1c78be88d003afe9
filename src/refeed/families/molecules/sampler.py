"""Samplers of conformers, named for what they do: every level, some levels evenly, or the noisiest levels only."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from refeed.core import progress
from refeed.core.errors import Stopped, StudyError
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.core.steps import POSITION
from refeed.families.molecules.worlds import MoleculeWorld, positions_column

if TYPE_CHECKING:
    from refeed.families.molecules.model import ConformerModel


@dataclass(frozen=True, kw_only=True)
class _Annealed(ABC):
    """From noise of the highest level down a list of levels. What is common to the samplers below.

    A model of distances takes one Langevin step a level, as published: with the local and global vectors F at atoms,

        x <- x + a F / sigma + sqrt(2 a) z,    a = `step_rate` (sigma / 0.01)^2,    then centred

    the global part only where sigma < `global_below`, each part limited to `clip` an atom. An aligned model, whose F estimates
    (x0 - x) / sigma, steps to the next level s by x0 + (s / sigma)^2 (x - x0) + s sqrt(1 - (s / sigma)^2) z (ancestral sampling).

    Row i is given the molecule of the real training row i, round and round: as many conformers of each molecule as the data have.
    Its noise depends on the seed and the row alone, not on the rows beside it. Rows that come out NaN or infinite are sampled
    once more from the same noise with clipping at `retry_clip`, and marked in the column `retried`; what is not finite then ends
    the lineage.
    """

    step_rate: float = 3e-6
    clip: float = 20.0
    global_below: float = 0.5
    retry_clip: float = 5.0
    batch_atoms: int = 700
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name in ("step_rate", "clip", "retry_clip", "batch_atoms"):
            if not getattr(self, name) > 0:
                raise StudyError(f"sampler.{name} must be more than 0, not {getattr(self, name)}")
        if self.global_below < 0:
            raise StudyError(f"sampler.global_below must not be negative, not {self.global_below}")

    @abstractmethod
    def schedule(self, num_levels: int) -> np.ndarray:
        """The levels that are visited, from the noisiest."""

    def sample(self, model: ConformerModel, num_rows: int, *, world: MoleculeWorld, seed: Seed) -> Rows:
        return self.conformers(model, self._given(num_rows, world), world=world, seed=seed)

    def sample_part(
        self, model: ConformerModel, num_rows: int, *, part: tuple[int, int], world: MoleculeWorld, seed: Seed
    ) -> Rows | None:
        """Every n-th of the batches that `sample` goes by. None where a row is not finite, as it is sampled again beside others."""
        given, rows = self._given(num_rows, world), np.arange(num_rows)
        found = self._run(model, given, rows, world, seed, self.clip, part)
        if not all(np.isfinite(x).all() for x in found.values()):
            return None
        mine = np.array(sorted(found), dtype=np.int64)
        return self._rows(given[mine], [found[row] for row in mine.tolist()], np.zeros(len(mine), bool)).with_columns(
            **{POSITION: mine}
        )

    def _given(self, num_rows: int, world: MoleculeWorld) -> np.ndarray:
        return np.asarray(world.given[np.arange(num_rows) % len(world.given)])

    def _rows(self, given: np.ndarray, found: list[np.ndarray], retried: np.ndarray) -> Rows:
        return Rows(molecule=np.asarray(given, dtype=np.int32), positions=positions_column(found), retried=retried)

    def conformers(self, model: ConformerModel, given: np.ndarray, *, world: MoleculeWorld, seed: Seed) -> Rows:
        """One conformer of each of the molecules `given`."""
        rows = np.arange(len(given))
        found = list(self._run(model, given, rows, world, seed, self.clip).values())
        bad = np.array([not np.isfinite(x).all() for x in found])
        if bad.any():
            again = self._run(model, given, rows[bad], world, seed, self.retry_clip)
            for row, x in again.items():
                found[row] = x
            lost = sum(not np.isfinite(x).all() for x in again.values())
            if lost:
                raise Stopped(
                    "non-finite",
                    f"{lost} of {len(rows)} conformers hold NaN or infinite positions, even when sampled again with scores "
                    f"clipped at {self.retry_clip:g}",
                )
        return self._rows(given, found, bad)

    def _run(
        self,
        model: ConformerModel,
        given: np.ndarray,
        rows: np.ndarray,
        world: MoleculeWorld,
        seed: Seed,
        clip: float,
        share: tuple[int, int] = (0, 1),
    ) -> dict[int, np.ndarray]:
        """Positions by row, in the order of `rows`; with `share` (i, n), those in every n-th batch from batch i on."""
        import torch

        from refeed.families.molecules.diffusion import batch_of, centred
        from refeed.families.molecules.model import by_size, device

        model.check(world.molecules)
        sigmas = model.sigmas
        levels = self.schedule(len(sigmas))
        sizes = world.molecules.atoms.lengths[given[rows]]
        done: dict[int, np.ndarray] = {}
        for part in itertools.islice(by_size(sizes, atoms=self.batch_atoms), share[0], None, share[1]):
            batch = batch_of(world.molecules, given[rows[part]]).to(device())
            streams = [(seed / int(row)).generator() for row in rows[part]]

            def noise(streams: list[np.random.Generator] = streams, part: np.ndarray = part) -> torch.Tensor:
                drawn = [s.standard_normal((n, 3), dtype=np.float32) for s, n in zip(streams, sizes[part], strict=True)]
                return torch.from_numpy(np.concatenate(drawn)).to(device(), model._type)

            with torch.inference_mode():
                x_N3 = centred(noise() * float(sigmas[-1]), batch)
                for number, level in enumerate(levels):
                    after = float(sigmas[levels[number + 1]]) if number + 1 < len(levels) else 0.0
                    x_N3 = centred(self._step(model, batch, x_N3, float(sigmas[level]), after, noise(), clip), batch)
                    progress.tick(len(done) + len(part) * (number + 1) / len(levels), len(rows), "conformers")
            ends = np.cumsum(sizes[part])[:-1]
            done |= dict(zip(rows[part].tolist(), np.split(x_N3.float().cpu().numpy(), ends), strict=True))
        return {row: done[row] for row in rows.tolist() if row in done}

    def _step(self, model: ConformerModel, batch: Any, x_N3: Any, sigma: float, after: float, noise_N3: Any, clip: float) -> Any:
        from refeed.families.molecules.diffusion import scores, vectors

        aligned = model.objective == "aligned"
        far = aligned or sigma < self.global_below
        local_N3, global_N3 = vectors(scores(model.net, batch, x_N3, far=far), batch, x_N3)
        if aligned:
            kept = (after / sigma) ** 2
            clean_N3 = x_N3 + sigma * clipped(local_N3 + global_N3, clip)
            return clean_N3 + kept * (x_N3 - clean_N3) + after * (1 - kept) ** 0.5 * noise_N3
        rate = self.step_rate * (sigma / 0.01) ** 2
        towards_N3 = clipped(local_N3, clip) + clipped(global_N3, clip)
        return x_N3 + (rate / sigma) * towards_N3 + (2 * rate) ** 0.5 * noise_N3


@dataclass(frozen=True, kw_only=True)
class Langevin(_Annealed):
    """Every level once, from the noisiest to the least: the published sampler with as many steps as levels."""

    step_rate: float = 1e-6
    clip: float = 1000.0
    retry_clip: float = 20.0

    def schedule(self, num_levels: int) -> np.ndarray:
        return np.arange(num_levels)[::-1]


@dataclass(frozen=True, kw_only=True)
class Strided(_Annealed):
    """`steps` levels, evenly spaced over all of them, from the noisiest to the least: few steps that still reach the end."""

    steps: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_steps(self.steps)

    def schedule(self, num_levels: int) -> np.ndarray:
        _check_steps(self.steps, num_levels)
        return np.unique(np.round(np.linspace(0, num_levels - 1, self.steps)).astype(np.int64))[::-1]


@dataclass(frozen=True, kw_only=True)
class Truncated(_Annealed):
    """The noisiest `steps` levels, and then stops: what fewer steps than levels mean in GeoDiff's released code.

    With 50 of 1000 levels it ends at sigma = 7.6 Angstrom: positions are still mostly noise.
    """

    steps: int = 50
    step_rate: float = 1e-6
    clip: float = 1000.0
    retry_clip: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_steps(self.steps)

    def schedule(self, num_levels: int) -> np.ndarray:
        _check_steps(self.steps, num_levels)
        return np.arange(num_levels - self.steps, num_levels)[::-1]


def clipped(vectors_N3: Any, limit: float) -> Any:
    """Each atom's vector, shortened to `limit` where it is longer. What is not finite stays so."""
    norm_N1 = vectors_N3.norm(dim=1, keepdim=True)
    return vectors_N3 * (limit / norm_N1.clamp_min(limit))


def _check_steps(steps: int, num_levels: int | None = None) -> None:
    if steps < 1 or (num_levels is not None and steps > num_levels):
        most = "" if num_levels is None else f" and at most learner.levels = {num_levels}"
        raise StudyError(f"sampler.steps must be at least 1{most}, not {steps}")

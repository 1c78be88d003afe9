"""The toy family with a log of what was done, and a SIGKILL of the worker in the midst of a step of one kind, once."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from refeed import policies
from refeed.core import progress
from refeed.core.checkpoints import Checkpoints
from refeed.core.errors import Stopped
from refeed.core.rows import Rows
from refeed.families.regression.learner import LeastSquares, moments
from refeed.families.regression.metrics import ExcessRisk
from refeed.families.regression.sampler import Relabel
from refeed.policies.wrappers import Wrapped
from refeed.studies import Case, Study
from refeed.studies.resources import Resources
from toy import KeptLinear, kept_study

KINDS = ("draw", "fit", "sample", "alter", "reduce", "measure")


@dataclass(frozen=True, kw_only=True)
class Faults:
    """`folder` holds the log; in each kind of step in `kill` the first worker to get there dies; `seconds`, of every fit."""

    folder: str
    kill: tuple[str, ...] = ()
    seconds: float = 0.0

    def identity(self):
        return {}

    def note(self, kind, *what):
        name = hashlib.sha256(repr(what).encode()).hexdigest()[:16]
        with open(Path(self.folder) / "log", "a") as file:
            file.write(f"{kind} {name}\n")
        if kind in self.kill:
            try:
                os.close(os.open(Path(self.folder) / f"killed-{kind}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGKILL)


def done(folder):
    """How often every step was begun."""
    return Counter((Path(folder) / "log").read_text().splitlines())


def repeated(folder, *, but=("reduce",)):
    """The steps that were begun more than once; sums over rows are kept in memory alone."""
    return {step: times for step, times in done(folder).items() if times > 1 and step.split()[0] not in but}


@dataclass(frozen=True, kw_only=True)
class Source(KeptLinear):
    faults: Faults

    def draw(self, *, seed):
        self.faults.note("draw", str(seed))
        return super().draw(seed=seed)


_faults: list[Faults] = []


def noted_moments(rows):
    _faults[0].note("reduce", rows["y"].tobytes())
    return moments(rows)


@dataclass(frozen=True, kw_only=True)
class Learner:
    faults: Faults
    provides: ClassVar[frozenset[str]] = LeastSquares.provides

    def fit(self, data, *, world, seed, start=None):
        _faults[:] = [self.faults]
        self.faults.note("fit", data.pool.digest, str(seed))
        progress.tick(1, 2, "halves")
        time.sleep(self.faults.seconds)
        data.total(noted_moments)
        return LeastSquares().fit(data, world=world, seed=seed)

    def load(self, folder):
        return LeastSquares().load(folder)


@dataclass(frozen=True, kw_only=True)
class Sampler:
    faults: Faults

    def sample(self, model, num_rows, *, world, seed):
        self.faults.note("sample", model.coefficients.tobytes(), num_rows, str(seed))
        return Relabel().sample(model, num_rows, world=world, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Same:
    """An alteration that changes nothing."""

    faults: Faults

    def candidates(self, num_rows):
        return num_rows

    def apply(self, rows, num_rows, *, score_of, generation, seed):
        self.faults.note("alter", rows["y"].tobytes(), str(seed))
        return rows


@dataclass(frozen=True, kw_only=True)
class Metric:
    faults: Faults
    name: ClassVar[str] = ExcessRisk.name
    needs: ClassVar[frozenset[str]] = ExcessRisk.needs
    quantities: ClassVar = ExcessRisk.quantities

    def measure(self, model, *, world, samples, seed):
        self.faults.note("measure", model.coefficients.tobytes(), str(seed))
        return ExcessRisk().measure(model, world=world, samples=samples, seed=seed)


def faulty_study(folder, *, kill=(), seconds=0.0, seeds=10, generations=3) -> Study:
    """Two policies, `seeds` seeds each: twice as many lineages."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    faults = Faults(folder=str(folder), kill=kill, seconds=seconds)
    case = Case(
        name="toy",
        source=Source(faults=faults),
        learner=Learner(faults=faults),
        sampler=Sampler(faults=faults),
        metrics=(Metric(faults=faults),),
    )
    altered = {
        name: Wrapped(policy=policy, alterations=(Same(faults=faults),))
        for name, policy in (("replace", policies.replace()), ("accumulate", policies.accumulate()))
    }
    return replace(kept_study(seeds=tuple(range(seeds)), generations=generations), cases=(case,), policies=altered)


@dataclass(frozen=True, kw_only=True)
class Lengthy(Learner):
    """A fit of many parts, which keeps how far it is after each."""

    parts: int = 20

    def fit(self, data, *, world, seed, start=None):
        checkpoints, done = Checkpoints(), 0
        if (kept := checkpoints.newest()) is not None:
            done = int(kept.read_text())
        for part in range(done, self.parts):
            self.faults.note("part", data.pool.digest, str(seed), part)
            time.sleep(self.faults.seconds)
            checkpoints.keep(part + 1, lambda path, done=part + 1: path.write_text(str(done)))
        return LeastSquares().fit(data, world=world, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Keyed:
    """Labels whose noise belongs to their row, so that rows can be drawn apart; `missing` says what some part cannot do."""

    faults: Faults
    missing: str = ""

    def identity(self):
        return {}

    def sample(self, model, num_rows, *, world, seed):
        self.faults.note("sample", model.coefficients.tobytes(), num_rows, str(seed))
        if self.missing == "stopped":
            raise Stopped("non-finite", f"{num_rows} of {num_rows} rows")
        return self._rows(model, range(num_rows), seed)

    def sample_part(self, model, num_rows, *, part, world, seed):
        self.faults.note("part", model.coefficients.tobytes(), part, str(seed))
        if self.missing and part[0] == 1:
            if self.missing == "stopped":
                raise Stopped("non-finite", "1 of 1 rows")
            return None
        rows = range(part[0], num_rows, part[1])
        return self._rows(model, rows, seed).with_columns(refeed_position=np.array(rows, dtype=np.int64))

    def _rows(self, model, rows, seed):
        drawn = np.array([(seed / row).generator().standard_normal(4) for row in rows]).reshape(-1, 4)
        y = (drawn[:, :3] * model.coefficients).sum(axis=1)  # row by row: a product of matrices rounds as its shape is
        return Rows(x=drawn[:, :3].copy(), y=y + drawn[:, 3])


def divided_study(folder, *, parts, kill=(), missing="", seeds=2, generations=2) -> Study:
    """The study above, without its alteration, whose samples are drawn in `parts`."""
    study = faulty_study(folder, kill=kill, seeds=seeds, generations=generations)
    (case,) = study.cases
    sampler = Keyed(faults=case.source.faults, missing=missing)
    resources = {"sample": Resources(parts=parts)} if parts > 1 else {}
    plain = {"replace": policies.replace(), "accumulate": policies.accumulate()}
    return replace(study, cases=(replace(case, sampler=sampler),), policies=plain, resources=resources)

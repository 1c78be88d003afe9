"""A tiny family that keeps its rows and models on disk: linear regression, told not to rebuild. For tests of the workspace."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from refeed import policies
from refeed.core.errors import Stopped
from refeed.core.protocols import Family
from refeed.families.regression.learner import LeastSquares, LinearModel
from refeed.families.regression.metrics import ExcessRisk
from refeed.families.regression.sampler import Relabel
from refeed.families.regression.source import Linear, LinearWorld
from refeed.studies import Case, Study


@dataclass(frozen=True, eq=False, kw_only=True)
class KeptWorld(LinearWorld):
    def save_extras(self, folder):
        (folder / "truth.json").write_text(json.dumps({"coefficients": self.coefficients.tolist(), "noise": self.noise}))


@dataclass(frozen=True, kw_only=True)
class KeptLinear:
    dimension: int = 3
    rows: int = 30
    rebuilds: ClassVar[bool] = False
    random: ClassVar[bool] = True

    @property
    def num_rows(self):
        return self.rows

    def draw(self, *, seed):
        return KeptWorld(**vars(Linear(dimension=self.dimension, rows=self.rows).draw(seed=seed)))

    def load(self, folder, *, train, test):
        truth = json.loads((folder / "truth.json").read_text())
        return KeptWorld(train=train, test=test, coefficients=np.array(truth["coefficients"]), noise=truth["noise"])


@dataclass(frozen=True, kw_only=True)
class Slow:
    """Least squares that takes its time, and counts every fit in a file."""

    seconds: float = 0.0
    log: str = ""
    provides: ClassVar[frozenset[str]] = LeastSquares.provides

    def identity(self):
        return {}

    def fit(self, data, *, world, seed, start=None):
        time.sleep(self.seconds)
        if self.log:
            with open(self.log, "a") as file:
                file.write(f"{data.pool.digest}/{seed}\n")
        return LeastSquares().fit(data, world=world, seed=seed)

    def load(self, folder) -> LinearModel:
        return LeastSquares().load(folder)


@dataclass(frozen=True, kw_only=True)
class Diverging:
    """Least squares whose third generation diverges, or raises, or kills its process."""

    how: str = "diverged"
    provides: ClassVar[frozenset[str]] = LeastSquares.provides

    def fit(self, data, *, world, seed, start=None):
        if max(data.pool.rows_by_generation()) == 2:
            if self.how == "diverged":
                raise Stopped("diverged", "the loss is not finite")
            if self.how == "killed":
                import os
                import signal

                os.kill(os.getpid(), signal.SIGKILL)
            raise ZeroDivisionError("a defect of a plug-in")
        return LeastSquares().fit(data, world=world, seed=seed)

    def load(self, folder) -> LinearModel:
        return LeastSquares().load(folder)


def kept_study(*, seeds=(0, 1), generations=3, learner=None, names=("replace", "accumulate", "accumulate-subsample"), metrics=None):
    presets = {
        "replace": policies.replace(),
        "accumulate": policies.accumulate(),
        "replace-multiple": policies.replace_multiple(),
        "accumulate-subsample": policies.accumulate_subsample(),
    }
    case = Case(
        name="toy",
        source=KeptLinear(),
        learner=learner or Slow(),
        sampler=Relabel(),
        metrics=(ExcessRisk(),) if metrics is None else metrics,
    )
    return Study(cases=(case,), policies={name: presets[name] for name in names}, seeds=seeds, generations=generations)


def show(rows, *, world, count):
    """The first labels, as an exhibit."""
    return [str(y) for y in rows["y"][:count]]


PLUG_INS = {"sources": {}, "learners": {}, "samplers": {}, "metrics": {}, "default": {}}
FAMILY = Family(name="toy", about="for tests", exhibit="toy:show", **PLUG_INS)

"""What an engine costs a step, and what two processors gain: inline, process and ray on one machine.

    python benchmarks/engines.py [--workers 2] [--seeds 40] [--busy 8] [--wait]

Overhead: a regression that is told to keep its rows, whose steps take a millisecond; wall time a step, beginning when the first
task is handed out. Speed-up: `busy` lineages of three generations whose fits each take half a second of one processor; or
(`--wait`) half a second of waiting, which shows what the engine itself gains where processors are not free.
"""

from __future__ import annotations

import argparse
import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from refeed.families.regression.learner import LeastSquares
from refeed.studies import Study, run
from refeed.studies.engines import Engine, Inline, Processes
from refeed.studies.engines.ray import Ray
from toy import kept_study


@dataclass(frozen=True, kw_only=True)
class Busy:
    """Least squares, after some hundred decompositions of a matrix, work for one processor; or after waiting for so long."""

    rounds: int
    seconds: float = 0.0
    provides: ClassVar[frozenset[str]] = LeastSquares.provides

    def fit(self, data, *, world, seed, start=None):
        time.sleep(self.seconds)
        work(self.rounds)
        return LeastSquares().fit(data, world=world, seed=seed)

    def load(self, folder):
        return LeastSquares().load(folder)


def work(rounds: int) -> None:
    matrix = np.random.default_rng(0).standard_normal((200, 200))
    for _ in range(rounds):
        np.linalg.qr(matrix)


def measure(study: Study, engine: Engine) -> tuple[float, float, int]:
    """Seconds until the first task is handed out (until the first has ended, inline), seconds from then on, and steps."""
    first: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        found = run(study, workspace=folder, engine=engine, listener=lambda event: first.append(time.perf_counter()))
        ended = time.perf_counter()
    return first[0] - started, ended - first[0], sum(int(kind["run"]) for kind in found.run["steps"].values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--busy", type=int, default=8)
    parser.add_argument("--wait", action="store_true")
    options = parser.parse_args()
    engines: list[Engine] = [Inline(), Processes(workers=options.workers), Ray(workers=options.workers)]
    started = time.perf_counter()
    work(20)
    rounds = round(20 * 0.5 / (time.perf_counter() - started))
    small = kept_study(seeds=tuple(range(options.seeds)), generations=5, names=("replace", "accumulate"))
    busy = Busy(rounds=0, seconds=0.5) if options.wait else Busy(rounds=rounds)
    large = kept_study(seeds=tuple(range(options.busy)), generations=3, names=("replace",), learner=busy)
    print("engine   to begin      a step   busy, all of it   speed-up   without the beginning")
    alone = 0.0
    for engine in engines:
        begin, seconds, steps = measure(small, engine)
        before, working, _ = measure(large, engine)
        alone = alone or before + working
        times = f"{engine.name:8} {begin:6.2f} s  {seconds / steps * 1e3:7.2f} ms  {before + working:13.2f} s"
        print(f"{times}  {alone / (before + working):7.2f} x  {alone / working:20.2f} x", flush=True)


if __name__ == "__main__":
    main()

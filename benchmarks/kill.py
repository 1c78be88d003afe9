"""Kill runs at random moments, over all step kinds and the verbs that write, and check that nothing is lost or half written.

    python benchmarks/kill.py [--kills 200] [--seed 0] [--folder /dev/shm]

Each run is a forked process that works on the same workspace until SIGKILL at a random moment; it is started again until it gets
through, and then the next study begins. In the end the workspace must give the results of an uninterrupted run to the last bit,
hold nothing damaged, and nothing half written.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute  # imported before the fork, so that kills meet work and not imports
import pyarrow.dataset
import pyarrow.parquet  # noqa: F401

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from refeed import catalogue, policies
from refeed.families.regression.metrics import ExcessRisk
from refeed.families.regression.sampler import Relabel
from refeed.policies.filters import TopFraction
from refeed.policies.wrappers import Wrapped
from refeed.studies import Case, Study, run
from refeed.studies.export import export, pick
from refeed.studies.run import results_folder
from refeed.workspace import Workspace
from refeed.workspace.garbage import collect
from toy import KeptLinear, Slow

PHASES = (
    "between steps", "draw", "fit", "sample", "alter", "measure", "write", "record", "trim", "results", "export", "gc", "end"
)  # fmt: skip
PAUSE = 0.004  # seconds that drawing, sampling and filtering take beyond their own, so that kills find them at work


@dataclass(frozen=True, kw_only=True)
class SlowLinear(KeptLinear):
    def draw(self, *, seed):
        time.sleep(4 * PAUSE)
        return super().draw(seed=seed)


@dataclass(frozen=True, kw_only=True)
class SlowRelabel(Relabel):
    def sample(self, model, num_rows, *, world, seed):
        time.sleep(PAUSE)
        return super().sample(model, num_rows, world=world, seed=seed)


@dataclass(frozen=True, kw_only=True)
class SlowFilter(TopFraction):
    def apply(self, rows, num_rows, *, score_of, generation, seed):
        time.sleep(PAUSE)
        return super().apply(rows, num_rows, score_of=score_of, generation=generation, seed=seed)


def study(seed: int) -> Study:
    """Four lineages under three policies, one of them filtered; every second study keeps only the rows that are needed."""
    case = Case(name="toy", source=SlowLinear(rows=400), learner=Slow(), sampler=SlowRelabel(), metrics=(ExcessRisk(),))
    presets = {"accumulate": policies.accumulate(), "accumulate-subsample": policies.accumulate_subsample()}
    presets["filtered"] = Wrapped(policy=policies.replace(), alterations=(SlowFilter(score="fit"),))
    rows = "needed" if seed % 8 else "all"
    return Study(cases=(case,), policies=presets, seeds=range(seed, seed + 4), generations=10, name=f"kill-{seed}", rows=rows)


def work(chosen: Study, folder: Path, phase: mmap.mmap) -> None:
    """One run, its results, an export and a gc; the phase is noted in shared memory for the parent."""

    def note(name: str) -> None:
        phase[0] = PHASES.index(name)

    def noting(function, name_of):
        def wrapped(*args, **options):
            before = phase[0]
            note(name_of(*args))
            try:
                return function(*args, **options)
            finally:
                phase[0] = before

        return wrapped

    Workspace._make = noting(Workspace._make, lambda store, step: step.kind)
    Workspace._store = noting(Workspace._store, lambda *_: "write")
    Workspace.record = noting(Workspace.record, lambda *_: "record")
    Workspace.trim = noting(Workspace.trim, lambda *_: "trim")
    store = Workspace(folder / "w")
    results = run(chosen, workspace=store)
    note("results")
    results.save(results_folder(store, chosen))
    note("export")
    arm, turn = pick(chosen, case=None, policy="accumulate-subsample", seed=None, generation=None)
    target = folder / f"export-{chosen.name}"
    if not target.exists():
        export(chosen, store, arm, turn, target)
    if chosen.seeds[0] % 16 == 0:
        note("gc")
        collect(store)
    note("end")


def attempt(chosen: Study, folder: Path, phase: mmap.mmap, seconds: float | None) -> tuple[bool, str, float]:
    """Run in a fork; kill it after `seconds`. Returns whether it was killed, in which phase, and how long it ran."""
    phase[0], started = 0, time.perf_counter()
    child = os.fork()
    if child == 0:
        try:
            work(chosen, folder, phase)
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(3)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 3:
        sys.exit("a run failed by itself")
    return os.WIFSIGNALED(status), PHASES[phase[0]], time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="where to make the workspace; a memory file system is faster")
    options = parser.parse_args()
    catalogue.decoder("")  # imports what is imported late
    rng, phase = np.random.default_rng(options.seed), mmap.mmap(-1, 1)
    folder = Path(tempfile.mkdtemp(prefix="refeed-kill-", dir=options.folder))
    _, _, whole = attempt(study(10**6), folder, phase, None)
    _, _, idle = attempt(study(10**6), folder, phase, None)  # nothing left to do
    print(f"a whole run takes {whole:.2f} s, one with nothing left to do {idle:.2f} s", file=sys.stderr)
    kills: Counter[str] = Counter()
    seeds, finished = 0, []
    while sum(kills.values()) < options.kills:
        chosen = study(4 * seeds)
        while True:
            killed, where, _ = attempt(chosen, folder, phase, rng.uniform(idle / 2, whole))
            if not killed:
                break
            kills[where] += 1
        finished.append(chosen)
        seeds += 1
    bad = check(finished, folder)
    print(json.dumps({"kills": sum(kills.values()), "by phase": dict(kills), "studies": len(finished), "problems": bad}, indent=1))
    shutil.rmtree(folder)
    sys.exit(bool(bad))


def check(finished: list[Study], folder: Path) -> list[str]:
    """What is wrong in the end, if anything."""
    store, problems = Workspace(folder / "w"), []
    store.tidy()
    for name in ("tmp", "damaged"):
        if left := list((store.path / name).iterdir()):
            problems.append(f"{len(left)} entries in {name}")
    for chosen in finished:
        again, fresh = run(chosen, workspace=store), run(chosen)
        if not again.scores.equals(fresh.scores):
            problems.append(f"{chosen.name}: other numbers than an uninterrupted run")
        if sum(kind["run"] for kind in again.run["steps"].values()):
            problems.append(f"{chosen.name}: steps were lost")
        exported = folder / f"export-{chosen.name}"
        if not all((exported / name).exists() for name in ("README.md", "croissant.json", "provenance.json")):
            problems.append(f"{exported.name} is half written")
    return problems


if __name__ == "__main__":
    main()

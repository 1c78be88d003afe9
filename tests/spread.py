"""A fit of a language model over two processes that keeps its state after every step, and is ended in its midst once, as told."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from refeed.core import checkpoints, progress
from refeed.families.language.learner import Llama
from refeed.families.language.sampler import Ancestral
from refeed.families.language.source import StoryGrammar
from refeed.policies import replace as replace_policy
from refeed.studies import Case, Study
from refeed.studies.resources import Resources

SHAPE = {"width": 32, "layers": 2, "heads": 2, "context": 80, "feed_forward": 64}
STEPS, MIDDLE = 34, 14


@dataclass(frozen=True, kw_only=True)
class Interrupted(Llama):
    """A Llama whose fit notes its steps in `folder`; after `MIDDLE` of them `end` ("kill", "preempt") comes over it, once."""

    folder: str = ""
    end: str = ""

    def identity(self):
        return {}

    def fit(self, data, *, world, seed, start=None):
        checkpoints.SECONDS = 0.0
        with progress.listen(self._tick):
            return super().fit(data, world=world, seed=seed, start=start)

    def _tick(self, done, total, unit, note):
        with open(Path(self.folder) / "steps", "a") as file:
            file.write(f"{int(done)}\n")
        if self.end and done == MIDDLE and not (Path(self.folder) / "ended").exists():
            (Path(self.folder) / "ended").touch()
            if self.end == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            for process in (*descendants(os.getpid()), os.getpid()):  # what Slurm sends, to every process of a job
                os.kill(process, signal.SIGTERM)
                os.kill(process, signal.SIGUSR2)


def descendants(process):
    """The processes that it started, those that these started, and so on."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {process}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {process})


def steps(folder):
    """The steps of the fit in the order in which they were told."""
    return [int(line) for line in (Path(folder) / "steps").read_text().split()]


def spread_study(folder, *, end="", devices=2) -> Study:
    folder.mkdir(parents=True, exist_ok=True)
    options = {"learning_rate": 1e-2, "batch_tokens": 320, "epochs": 2, "micro_tokens": 100}
    case = Case(
        name="stories",
        family="language",
        source=StoryGrammar(rows=150, test_rows=60),
        learner=Interrupted(**SHAPE, **options, folder=str(folder), end=end),
        sampler=Ancestral(engine="torch"),
        metrics=(),
    )
    asked = {"fit": Resources(devices=devices)}
    return Study(cases=(case,), policies={"replace": replace_policy()}, seeds=(0,), generations=1, resources=asked)

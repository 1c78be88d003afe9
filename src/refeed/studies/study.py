"""A study: a question, and the grid of lineages that answers it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from refeed.core.errors import StudyError
from refeed.core.loop import Lineage, Turn, turns
from refeed.core.protocols import Learner, Metric, Policy, Sampler, Source
from refeed.core.recipes import digest
from refeed.core.seeds import Seed


@dataclass(frozen=True, kw_only=True)
class Case:
    """One setting of a family: a source, a learner, a sampler and metrics."""

    source: Source
    learner: Learner
    sampler: Sampler
    metrics: tuple[Metric, ...]
    name: str = "main"
    family: str = ""
    labels: Mapping[str, Any] = field(default_factory=dict)  # what tells this case from the others of a grid

    def check(self) -> None:
        """Refuse what would only fail after an hour: a metric that the models or the source cannot serve."""
        offered = set(self.learner.provides) | set(getattr(self.source, "knows", ())) | {"samples"}
        for metric in self.metrics:
            if lacking := set(metric.needs) - offered:
                raise StudyError(
                    f"metric {metric.name!r} needs {' and '.join(sorted(lacking))}, which neither the learner "
                    f"{type(self.learner).__name__} nor the source {type(self.source).__name__} offers.",
                    hint="Drop the metric, or choose a learner or source that offers it.",
                )


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One lineage of a study, and its place in the grid."""

    case: Case
    policy: str
    seed: int
    lineage: Lineage
    generations: int

    @cached_property
    def turns(self) -> tuple[Turn, ...]:
        return tuple(turns(self.lineage, self.generations))


@dataclass(frozen=True, kw_only=True)
class Study:
    """Cases x policies x seeds, each followed for some generations."""

    cases: Sequence[Case]
    policies: Mapping[str, Policy]
    seeds: Sequence[int] = (0, 1, 2)
    generations: int = 5
    name: str = "study"
    question: str = ""
    scale: str = "small"

    def __post_init__(self) -> None:
        if self.generations < 1:
            raise StudyError(f"generations must be at least 1, not {self.generations}.")
        if not self.seeds:
            raise StudyError("seeds must name at least one lineage.", hint="Type: --set seeds=3")
        if len(set(self.seeds)) < len(self.seeds):
            raise StudyError(f"seeds must differ from each other, but are {list(self.seeds)}: equal seeds are equal lineages.")
        if not self.cases or not self.policies:
            raise StudyError("a study needs at least one case and one policy.")
        for case in self.cases:
            case.check()
            for name, policy in self.policies.items():
                if getattr(policy, "draws_real", False) and not case.source.random:
                    raise StudyError(
                        f"policy {name!r} asks for real rows that no generation has seen, but the source "
                        f"{type(case.source).__name__} of case {case.name!r} has only those it has.",
                        hint="Use fixed-real, or a source that draws at random.",
                    )

    @cached_property
    def arms(self) -> tuple[Arm, ...]:
        """Every lineage, seed by seed, so that complete comparisons come first."""
        return tuple(
            Arm(
                case=case,
                policy=name,
                seed=seed,
                lineage=self._lineage(case, policy, seed),
                generations=self.generations,
            )
            for case in self.cases
            for seed in self.seeds
            for name, policy in self.policies.items()
        )

    def _lineage(self, case: Case, policy: Policy, seed: int) -> Lineage:
        return Lineage(
            source=case.source,
            learner=case.learner,
            sampler=case.sampler,
            metrics=tuple(case.metrics),
            policy=policy,
            seed=Seed(seed),
        )

    @cached_property
    def digest(self) -> str:
        """The identity of all that is asked: two studies of one digest have the same results."""
        cases = [[c.name, c.source, c.learner, c.sampler, list(c.metrics)] for c in self.cases]
        return digest(cases, dict(self.policies), list(self.seeds), self.generations)

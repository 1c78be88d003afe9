"""A study: a question, and the grid of lineages that answers it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from refeed.core.errors import StudyError
from refeed.core.loop import Lineage, Turn, start, turn, turns
from refeed.core.protocols import DivisibleSampler, Learner, Metric, Policy, Sampler, Source
from refeed.core.recipes import digest
from refeed.core.seeds import Seed
from refeed.core.shards import Pool
from refeed.core.steps import Given
from refeed.studies import resources
from refeed.studies.resources import KINDS, Resources

MAX_GENERATIONS = 10_000
STARTS = ("scratch", "previous")


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
    start: str = "scratch"  # or "previous": warm start; or where weights lie that every generation begins from
    first_learner: Learner | None = None  # of generation 1 alone

    @cached_property
    def given(self) -> Given | None:
        """The model from outside that every fit begins from, if there is one."""
        return None if self.start in STARTS else Given(self.learner, self.start)

    def check(self) -> None:
        """Refuse what would only fail after an hour: a metric that the models or the source cannot serve."""
        offered = set(self.learner.provides) | set(getattr(self.source, "knows", ())) | {"samples", "history"}
        for metric in self.metrics:
            if lacking := set(metric.needs) - offered:
                raise StudyError(
                    f"metric {metric.name!r} needs {' and '.join(sorted(lacking))}, which neither the learner "
                    f"{type(self.learner).__name__} nor the source {type(self.source).__name__} offers.",
                    hint="Drop the metric, or choose a learner or source that offers it.",
                )
        _refuse_twice([metric.name for metric in self.metrics], "metric", "metrics")
        learner = type(self.learner).__name__
        if self.start not in STARTS and "pretrained" not in self.learner.provides:
            message = f"start must be 'scratch' or 'previous', not {self.start!r}: {learner} cannot begin from given weights."
            raise StudyError(message, at="start")
        if self.given is not None:
            _ = self.given.digest  # weights that are not there are said now
        for fitting in (self.learner, self.first_learner):
            if check := getattr(fitting, "check", None):
                check(source=self.source, start=self.start)
        for used in filter(None, (self.learner, self.first_learner)):
            for part in (self.sampler, *self.metrics):
                if check := getattr(part, "check", None):
                    check(source=self.source, learner=used)
        if self.start == "previous" and "warm_start" not in self.learner.provides:
            raise StudyError(f"start = 'previous' needs a learner that can go on from a model, but {learner} cannot.", at="start")
        if self.source.rebuilds and not self.metrics:
            raise StudyError(f"case {self.name!r} measures nothing, and of its family only numbers are kept.", at="metrics")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One lineage of a study, and its place in the grid."""

    case: Case
    policy: str
    seed: int
    lineage: Lineage
    generations: int
    min_real_share: float = 0.0
    on_low_real_share: str = "stop"

    @cached_property
    def turns(self) -> tuple[Turn, ...]:
        """The generations that are to be run: those before a training set with too few real rows, or all."""
        unguarded = turns(self.lineage, self.generations)
        return tuple(unguarded if self.on_low_real_share == "warn" else itertools.takewhile(self._has_enough, unguarded))

    @cached_property
    def last_pool(self) -> Pool:
        """What is kept after the last generation."""
        state = start(self.lineage)
        for _ in self.turns:
            state, _now = turn(self.lineage, state)
        return state.pool

    def _has_enough(self, turn: Turn) -> bool:
        return not turn.train.num_rows or turn.train.real_share >= self.min_real_share

    @cached_property
    def guard(self) -> str | None:
        """The first training set with too few real rows, and what would satisfy the guard; None where there is none."""
        short = next((turn for turn in turns(self.lineage, self.generations) if not self._has_enough(turn)), None)
        if not self.min_real_share or short is None:
            return None
        real, synthetic = short.train.num_real, short.train.num_rows - short.train.num_real
        share = self.min_real_share
        more = math.ceil(synthetic * share / (1 - share) - real - 1e-9) if share < 1 else None
        fewer = math.floor(real * (1 - share) / share + 1e-9)
        enough = f"{more} more real rows, or " if more is not None else ""
        found = f"generation {short.generation} would train on {short.train.real_share:.1%} real rows"
        return (
            f"{found}, below min_real_share = {share:.1%}; it needs {enough}at most {fewer} synthetic rows instead of {synthetic}"
        )


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
    min_real_share: float = 0.0  # a lineage stops before a generation would train on less
    on_low_real_share: str = "stop"  # or "warn"
    rows: str = "all"  # which rows stay on the disk; or "needed": those that some later generation can still use
    resources: Mapping[str, Resources] = field(default_factory=dict)  # by kind of step; no part of the study's identity

    def __post_init__(self) -> None:
        if not 1 <= self.generations <= MAX_GENERATIONS:
            raise StudyError(
                f"generations must be at least 1 and at most {MAX_GENERATIONS:,}, not {self.generations}.", at="generations"
            )
        if not 0 <= self.min_real_share <= 1:
            raise StudyError(f"min_real_share must be a fraction in [0, 1], not {self.min_real_share}.", at="min_real_share")
        if not self.seeds:
            raise StudyError("seeds must name at least one lineage.", hint="Type: --set seeds=3", at="seeds")
        if len(set(self.seeds)) < len(self.seeds):
            message = f"seeds must differ from each other, but are {list(self.seeds)}: equal seeds are equal lineages."
            raise StudyError(message, at="seeds")
        if not all(abs(seed) < 2**63 for seed in self.seeds):
            raise StudyError("seeds must be below 2^63.", at="seeds")
        _refuse_twice([case.name for case in self.cases], "case", "cases")
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
                        at="policies",
                    )
                if getattr(policy, "matches_steps", False) and "steps" not in case.learner.provides:
                    learner = type(case.learner).__name__
                    message = f"policy {name!r} matches training steps, but {learner} of case {case.name!r} takes none."
                    raise StudyError(message, at="controls")
        if self.rows not in ("all", "needed"):
            raise StudyError(f"rows must be 'all' or 'needed', not {self.rows!r}.", at="rows")
        if self.on_low_real_share not in ("stop", "warn"):
            message = f"on_low_real_share must be 'stop' or 'warn', not {self.on_low_real_share!r}."
            raise StudyError(message, at="on_low_real_share")
        for kind in self.resources:
            if kind not in KINDS:
                raise StudyError(
                    f"resources are of steps, and {kind!r} is none.", hint=f"Known: {', '.join(KINDS)}.", at="resources"
                )
            if self.resources[kind].parts > 1 and not (kind == "sample" and any(map(_divisible, self.cases))):
                what = f"a {kind} step cannot be divided"
                if kind == "sample":
                    samplers = sorted({type(case.sampler).__name__ for case in self.cases})
                    what = f"the rows of {' or '.join(samplers)} cannot be drawn in parts"
                raise StudyError(f"{what}.", hint=f"Leave out resources.{kind}.parts.", at=f"resources.{kind}.parts")
        self._refuse_unspreadable()
        _ = self.digest  # what cannot be told apart is refused now, not after an hour

    def _refuse_unspreadable(self) -> None:
        for kind, asked in self.resources.items():
            if asked.devices in (None, 1) and asked.sharded is None:
                continue
            if kind != "fit":
                raise StudyError(f"a fit can be spread over devices, but no {kind} step.", at=f"resources.{kind}.devices")
            for case in self.cases:
                if "devices" not in case.learner.provides:
                    learner = type(case.learner).__name__
                    message = f"resources.fit asks for {asked.spread} devices, but {learner} of case {case.name!r} trains on one."
                    raise StudyError(message, hint="Type: --set resources.fit.devices=1", at="resources.fit.devices")

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
                min_real_share=self.min_real_share,
                on_low_real_share=self.on_low_real_share,
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
            start=case.given or case.start,
            first_learner=case.first_learner,
            sample_parts=1 if case.source.rebuilds else resources.of(self.resources, "sample").parts,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Without what is worked out again in microseconds, so that a study is small to send."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @cached_property
    def digest(self) -> str:
        """The identity of all that is asked: two studies of one digest have the same results."""
        cases = [
            [c.name, c.source, c.learner, c.sampler, list(c.metrics), c.given.digest if c.given else c.start]
            + ([c.first_learner] if c.first_learner else [])
            for c in self.cases
        ]
        return digest(cases, dict(self.policies), list(self.seeds), self.generations, self.min_real_share, self.on_low_real_share)


def _divisible(case: Case) -> bool:
    return isinstance(case.sampler, DivisibleSampler) and not case.source.rebuilds


def _refuse_twice(names: Sequence[str], what: str, at: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise StudyError(f"{what} {name!r} is there twice; their results could not be told apart.", at=at)

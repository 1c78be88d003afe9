"""What a family brings: source, learner, model, sampler, metrics. And what a policy is.

All but models and worlds are frozen dataclasses of hyperparameters (see `recipes`); each may set `version: ClassVar[int]`, to be
bumped when the code that interprets it gives other results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from refeed.core.errors import StudyError
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.core.shards import Part, Pool, Shard

if TYPE_CHECKING:
    from refeed.core.loop import State


@dataclass(frozen=True, eq=False, kw_only=True)
class World:
    """What is real: the training rows, the held-out test rows, and what the source knows beyond rows.

    A family subclasses it to add what the real data fix once and for all (a tokenizer, the true coefficients, a grammar).
    """

    train: Rows
    test: Rows
    scores: ClassVar[tuple[str, ...]] = ("detector",)

    def score(self, name: str, rows: Rows, *, model: Any) -> np.ndarray:
        """How good each row is by the score `name`, higher is better: (rows,); what filters go by. A family adds its own.

        `detector` is known to all: the log odds that a row is real, by a classifier between the real training rows and these.
        """
        if name != "detector":
            raise StudyError(f"the source of these rows knows no score {name!r}.", hint=f"Known: {', '.join(self.scores)}.")
        from refeed.core.detector import log_odds_real

        return log_odds_real(self.train, rows)


class Data:
    """A training set with its rows at hand, one part at a time, so that memory stays flat as generations accumulate."""

    def __init__(
        self,
        pool: Pool,
        *,
        rows_of: Callable[[Part], Rows],
        statistic_of: Callable[[Shard, Any], np.ndarray],
        visits: int | None = None,
    ) -> None:
        self.pool = pool
        self.visits = pool.num_rows if visits is None else visits  # rows that count as an epoch: fewer, to match steps
        self._rows_of = rows_of
        self._statistic_of = statistic_of

    @property
    def num_rows(self) -> int:
        return self.pool.num_rows

    def rows(self, part: Part) -> Rows:
        return self._rows_of(part)

    def __iter__(self) -> Iterator[tuple[Rows, float]]:
        """The parts in order, as (rows, weight)."""
        return ((self.rows(part), part.weight) for part in self.pool)

    def concatenate(self) -> Rows:
        """All rows at once. Refused where weights differ, since they would be lost."""
        if len({part.weight for part in self.pool}) > 1:
            raise StudyError("this learner takes no weights on its rows, but the policy gives some.", hint="Choose another policy.")
        return Rows.concatenate([rows for rows, _ in self])

    def total(self, statistic: Callable[[Rows], np.ndarray]) -> np.ndarray:
        """The weighted sum over rows of an additive statistic, remembered shard by shard.

        `statistic` must be a named module-level function with statistic(a + b) = statistic(a) + statistic(b), such as a Gram
        matrix. An accumulating loop then reads each shard once, not once a generation.
        """
        if "<" in statistic.__qualname__:
            raise TypeError(
                f"a statistic must be a module-level function, since it is remembered by name: {statistic.__qualname__}"
            )
        total: Any = 0.0
        for part in self.pool:
            value = self._statistic_of(part.shard, statistic) if part.index is None else statistic(self.rows(part))
            total = total + (value if part.weight == 1.0 else part.weight * value)
        return np.asarray(total)


@runtime_checkable
class Source(Protocol):
    """Where real rows come from."""

    rebuilds: ClassVar[bool]  # rows are made again faster than they are read: keep recipes and numbers, never rows
    random: ClassVar[bool]  # every lineage draws its own real rows (else all lineages share them)

    @property
    def num_rows(self) -> int:
        """How many real training rows there are; known without drawing them."""
        ...

    def draw(self, *, seed: Seed) -> World: ...


class Model(Protocol):
    """A fitted model. `save` writes it into an empty folder; the learner's `load` reads it back bit for bit."""

    def save(self, folder: Path) -> None: ...


class Learner(Protocol):
    """A recipe that turns a training set into a model. Deterministic in its seed; never touches global random state.

    One that provides "pretrained" has `given(name)`, a model from outside, and `given_digest(name)`, the identity of its content.
    It may have `check(source, start)`, which raises a `StudyError` for what could not be fitted, before anything runs.
    """

    provides: ClassVar[frozenset[str]]  # what its models can do beyond being sampled: "log_prob", ...; "warm_start", "steps"

    def fit(self, data: Data, *, world: Any, seed: Seed, start: Any = None) -> Any: ...


class Sampler(Protocol):
    """How rows are drawn from a model. `world` offers what sampling may be given: real inputs, prompts, graphs.

    It may have `check(source, learner)`, which raises a `StudyError` for what could not be drawn, before anything runs; and
    `check_machine()` for what this machine lacks, where all steps run on it.
    """

    def sample(self, model: Any, num_rows: int, *, world: Any, seed: Seed) -> Rows: ...


@runtime_checkable
class DivisibleSampler(Sampler, Protocol):
    """A sampler that can also draw some of the rows of `sample` by themselves, so that they can be drawn side by side."""

    def sample_part(self, model: Any, num_rows: int, *, part: tuple[int, int], world: Any, seed: Seed) -> Rows | None:
        """Part i of n, `part` = (i, n), i < n: some of the rows that `sample` gives for the same arguments, bit for bit.

        A column `refeed_position` holds their positions there, increasing; the n parts have each row once. Which rows those are,
        the sampler chooses: most keep what is computed together together. None where it cannot be promised for this model, or on
        this machine: then all rows are drawn at once after all.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One number that a metric reports.

    Those of one `series` are points of one curve, drawn together for each model: this one `at` its place `along` the axis.
    """

    name: str
    unit: str = "1"
    better: str = "lower"  # "lower", "higher" or "neither"
    role: str = "other"  # risk | quality | diversity | tail | audit | reference | other: the verdict it speaks to
    reference: str = ""  # name of the quantity to hold it against: the source's own entropy, the same of real rows
    notice: str = ""  # what to tell the user where it is above 0: "of the sampled rows are repeats"
    meaning: str = ""
    series: str = ""  # the curve's name: "learning curve"
    along: str = ""  # its axis: "share of training"
    at: float = 0.0


def with_real(*quantities: Quantity | tuple[str, ...], real: str) -> tuple[Quantity, ...]:
    """Each quantity, and after it `NAME_real`, the same of the `real` rows named, which it is held against.

    A quantity may be a line of a table: its name, unit, better, role and meaning.
    """
    found: list[Quantity] = []
    for given in quantities:
        if isinstance(given, Quantity):
            quantity = given
        else:
            name, unit, better, role, meaning = given
            quantity = Quantity(name=name, unit=unit, better=better, role=role, meaning=meaning)
        reference = f"{quantity.name}_real"
        found.append(replace(quantity, reference=reference))
        found.append(
            Quantity(name=reference, unit=quantity.unit, better="neither", role="reference", meaning=f"the same of {real}")
        )
    return tuple(found)


class Metric(Protocol):
    """Numbers about a model (`needs` names what of it) or its samples (`needs` holds "samples").

    One that needs "history" has `history_rows`, and `measure` is given `history` too: the first so many rows that each earlier
    model of the lineage wrote. It may have `check(source, learner)`, which raises a `StudyError` for what it could not measure,
    before anything runs.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]]
    quantities: ClassVar[tuple[Quantity, ...]]

    def measure(self, model: Any, *, world: Any, samples: Rows | None, seed: Seed) -> dict[str, float]: ...


class Alteration(Protocol):
    """What is done to sampled rows before a policy keeps them: a filter or a corruption.

    It asks for `candidates(n)` rows to make n of. `apply` returns n rows with the columns of the candidates, and, where they were
    chosen, `refeed_row` (the position among the candidates) and `refeed_score`.
    """

    def candidates(self, num_rows: int) -> int: ...

    def apply(self, rows: Rows, num_rows: int, *, score_of: Callable[[str], np.ndarray], generation: int, seed: Seed) -> Rows: ...


@runtime_checkable
class Policy(Protocol):
    """Decides how many rows to sample, which stay, and which the next model learns from. Sees counts and origins only.

    It may have further attributes: `alterations`, applied in order to what was sampled; `draws_real`, if it asks for real rows that
    no generation has seen; `matches_steps`, if every model is trained for as many steps as that of generation 1.
    """

    def amount(self, state: State) -> int: ...

    def keep(self, state: State, fresh: Shard, *, seed: Seed) -> Pool: ...

    def training_set(self, state: State, *, seed: Seed) -> Pool: ...


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one step takes, known before it runs: floating-point operations, tokens, bytes it writes; the model's parameters."""

    flops: float = 0.0
    tokens: int = 0
    bytes: int = 0
    parameters: int = 0


@dataclass(frozen=True, kw_only=True)
class Family:
    """A model family: its plug-ins by name, as `module:Class` looked up only when used, and what a study gets by default."""

    name: str
    about: str
    sources: dict[str, str]
    learners: dict[str, str]
    samplers: dict[str, str]
    metrics: dict[str, str]
    default: dict[str, Any]  # source, learner, sampler: a name or a table; metrics: names
    extra: str | None = None  # the optional dependencies' name, and the modules that prove it is installed
    requires: tuple[str, ...] = field(default=())
    exhibit: str | None = None  # `module:function` that shows a few rows: f(rows, *, world, count) -> list[str]
    decode: str | None = None  # `module:function`, columns for people: f(rows, *, folder of the kept source) -> {name: list}
    exhibit_kind: str = "text"  # what those strings are: "text", or "image" (data URIs)
    exhibit_count: int = 3  # how many rows are shown of each generation
    # `module:function` that shows a model beside its rows: f(model or None for real rows, *, world, rows) -> {title: list[str]}
    portrait: str | None = None
    costs: str | None = None  # `module:function`, what a step takes: f(step) -> Cost, or None where that is not known ahead
    calibrate: str | None = None  # `module:function`, what this machine does in a second: f(case, *, seconds) -> {kind: FLOP/s}

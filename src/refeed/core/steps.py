"""Steps: the units of work, as recipes. Building one costs microseconds and computes nothing but its digest.

A step's digest follows from the digests of what it is made from, before it runs. So a plan is complete before the first second is
spent, equal work is done once, and a store is a memo from digest to value.

    Draw(source)                     -> World
    Fit(learner, training set)       -> model
    Sample(sampler, model, n)        -> Rows
    Part(sample, i)                  -> Rows       (some of the rows of a divided sample)
    Alter(alteration, rows, n)       -> Rows       (filtered or corrupted, before a policy keeps them)
    Reduce(shard, statistic)         -> array      (kept in memory only)
    Measure(metric, model, samples)  -> numbers

Two have no place among the others, being cheap and never kept: Reduce, and Given(learner, name) -> a model that was there before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from refeed.core.errors import Stopped
from refeed.core.protocols import Alteration, Data, DivisibleSampler, Learner, Metric, Policy, Sampler, Source, World
from refeed.core.recipes import digest_of, join
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.core.shards import Origin, Pool, Shard

Realise = Callable[["Step"], Any]
POSITION = "refeed_position"


class Step:
    """One unit of work: `digest` is its identity, `inputs` what it stands on, `run` does it, given the inputs' values."""

    kind: ClassVar[str]
    rebuilds: bool  # cheaper to run again than to read back: never kept on disk

    @property
    def digest(self) -> str:
        raise NotImplementedError

    def inputs(self) -> Iterator[Step]:
        raise NotImplementedError

    def run(self, realise: Realise) -> Any:
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Draw(Step):
    """Real rows, train and test, from a source."""

    source: Source
    seed: Seed
    kind = "draw"

    @cached_property
    def digest(self) -> str:
        return join(self.kind, digest_of(self.source), self.seed.key.hex() if self.source.random else "")

    @cached_property
    def shard(self) -> Shard:
        return Shard(self, self.source.num_rows, Origin(generation=0))

    @property
    def rebuilds(self) -> bool:  # type: ignore[override]
        return self.source.rebuilds

    def inputs(self) -> Iterator[Step]:
        return iter(())

    def run(self, realise: Realise) -> World:
        world = self.source.draw(seed=self.seed)
        _expect(len(world.train), self.source.num_rows, "the source drew", "rows")
        return world


@dataclass(frozen=True, eq=False)
class Given(Step):
    """A model from outside, by the name of its place; its identity is the content that the learner finds there."""

    learner: Learner
    name: str
    kind = "given"
    rebuilds = True

    @cached_property
    def digest(self) -> str:
        return join(self.kind, self.learner.given_digest(self.name))  # type: ignore[attr-defined]

    def inputs(self) -> Iterator[Step]:
        return iter(())

    def run(self, realise: Realise) -> Any:
        return self.learner.given(self.name)  # type: ignore[attr-defined]


@dataclass(frozen=True, eq=False)
class Fit(Step):
    """A model from a training set; from scratch, or from the model `start`.

    `generation` and `policy` say in which lineage it was first asked for: no part of its identity, since lineages share models.
    """

    learner: Learner
    train: Pool
    draw: Draw
    seed: Seed
    start: Fit | Given | None = None
    visits: int | None = None
    generation: int = 0
    policy: Policy | None = None
    kind = "fit"

    @cached_property
    def digest(self) -> str:
        parts = [digest_of(self.learner), self.train.digest, self.draw.digest, self.seed.key.hex()]
        if self.start is not None:
            parts += ["start", self.start.digest]
        if self.visits is not None and self.visits != self.train.num_rows:
            parts += ["visits", str(self.visits)]
        return join(self.kind, *parts)

    @property
    def rebuilds(self) -> bool:  # type: ignore[override]
        return self.draw.source.rebuilds

    def inputs(self) -> Iterator[Step]:
        yield self.draw
        yield from (part.shard.step for part in self.train if part.shard.step is not self.draw)
        if isinstance(self.start, Fit):
            yield self.start

    def run(self, realise: Realise) -> Any:
        if not self.train.num_rows:
            raise Stopped("empty pool", "the policy left no row to train on")
        data = Data(
            self.train,
            rows_of=lambda part: rows_of(part.shard, realise, part.index),
            statistic_of=lambda shard, statistic: realise(Reduce(shard, statistic)),
            visits=self.visits,
        )
        start = realise(self.start) if self.start is not None else None
        return self.learner.fit(data, world=realise(self.draw), seed=self.seed, start=start)


@dataclass(frozen=True, eq=False)
class Sample(Step):
    """`num_rows` rows from a model.

    With `num_parts` above 1 they are drawn in so many parts, which are steps by themselves, and put together: the same rows, so it
    is no part of the identity.
    """

    sampler: Sampler
    model: Fit
    num_rows: int
    generation: int
    seed: Seed
    num_parts: int = 1
    kind = "sample"

    @cached_property
    def digest(self) -> str:
        return join(self.kind, digest_of(self.sampler), self.model.digest, str(self.num_rows), self.seed.key.hex())

    @cached_property
    def shard(self) -> Shard:
        return Shard(self, self.num_rows, Origin(generation=self.generation, model=self.model.digest))

    @property
    def rebuilds(self) -> bool:  # type: ignore[override]
        return self.model.rebuilds

    def inputs(self) -> Iterator[Step]:
        yield self.model
        yield self.model.draw

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The steps that draw the rows, where they are drawn in parts."""
        divided = self.num_parts > 1 and isinstance(self.sampler, DivisibleSampler)
        return tuple(Part(self, number) for number in range(self.num_parts)) if divided else ()

    def run(self, realise: Realise) -> Rows:
        rows = self._joined(realise)
        if rows is None:
            model, world = realise(self.model), realise(self.model.draw)
            rows = self.sampler.sample(model, self.num_rows, world=world, seed=self.seed)
        _expect(len(rows), self.num_rows, "the sampler returned", "rows")
        if bad := rows.num_non_finite():
            raise Stopped("non-finite", f"{bad} of {len(rows)} sampled rows hold NaN or infinite values")
        return rows

    def _joined(self, realise: Realise) -> Rows | None:
        """The rows of all parts in order; None where there are no parts, or one could not be had by itself."""
        drawn = Rows.concatenate([realise(part) for part in self.parts]) if self.parts else Rows()
        if not self.parts or len(drawn) != self.num_rows:
            return None
        order = np.argsort(drawn[POSITION], kind="stable")
        if not np.array_equal(drawn[POSITION][order], np.arange(self.num_rows)):
            raise ValueError(f"the parts of {type(self.sampler).__name__} do not have each of {self.num_rows} rows once")
        return drawn.without(POSITION).take(order)


@dataclass(frozen=True, eq=False)
class Part(Step):
    """Some of the rows of the sample `whole`, with their positions; no rows where they cannot be had by themselves.

    Kept until the whole is there. What a sampler stops for is left to the whole, which then says it of all rows.
    """

    whole: Sample
    number: int
    kind = "part"

    @cached_property
    def digest(self) -> str:
        return join(self.kind, self.whole.digest, str(self.number), str(self.whole.num_parts))

    @property
    def num_rows(self) -> int:
        """About how many rows it has: the sampler divides them."""
        return math.ceil(self.whole.num_rows / self.whole.num_parts)

    @property
    def rebuilds(self) -> bool:  # type: ignore[override]
        return self.whole.rebuilds

    def inputs(self) -> Iterator[Step]:
        return self.whole.inputs()

    def run(self, realise: Realise) -> Rows:
        whole = self.whole
        model, world, part = realise(whole.model), realise(whole.model.draw), (self.number, whole.num_parts)
        assert isinstance(whole.sampler, DivisibleSampler)
        try:
            rows = whole.sampler.sample_part(model, whole.num_rows, part=part, world=world, seed=whole.seed)
        except Stopped as stopped:
            if stopped.recorded:  # by a step that this one stands on
                raise
            rows = None
        return Rows(**{POSITION: np.zeros(0, np.int64)}) if rows is None else rows


@dataclass(frozen=True, eq=False)
class Alter(Step):
    """`num_rows` rows made of the candidates in `rows` by a filter or a corruption."""

    alteration: Alteration
    rows: Shard
    model: Fit
    num_rows: int
    seed: Seed
    kind = "alter"

    @cached_property
    def digest(self) -> str:
        generation = str(self.rows.origin.generation)
        return join(self.kind, digest_of(self.alteration), self.rows.digest, str(self.num_rows), generation, self.seed.key.hex())

    @cached_property
    def shard(self) -> Shard:
        return Shard(self, self.num_rows, self.rows.origin)

    @property
    def rebuilds(self) -> bool:  # type: ignore[override]
        return self.model.rebuilds

    def inputs(self) -> Iterator[Step]:
        yield self.rows.step
        yield self.model
        yield self.model.draw

    def run(self, realise: Realise) -> Rows:
        candidates, world = rows_of(self.rows, realise), realise(self.model.draw)

        def score_of(name: str) -> np.ndarray:
            return world.score(name, candidates, model=realise(self.model))

        generation = self.rows.origin.generation
        made = self.alteration.apply(candidates, self.num_rows, score_of=score_of, generation=generation, seed=self.seed)
        _expect(len(made), self.num_rows, f"{type(self.alteration).__name__} returned", "rows")
        if bad := made.num_non_finite("refeed_score"):
            raise Stopped(
                "non-finite", f"{bad} of {len(made)} rows hold NaN or infinite values after {type(self.alteration).__name__}"
            )
        return made


@dataclass(frozen=True, eq=False)
class Reduce(Step):
    """The sum over a shard's rows of an additive statistic."""

    shard: Shard
    statistic: Callable[[Rows], np.ndarray]
    kind = "reduce"
    rebuilds = True

    @cached_property
    def digest(self) -> str:
        return join(self.kind, self.shard.digest, self.statistic.__module__, self.statistic.__qualname__)

    def inputs(self) -> Iterator[Step]:
        yield self.shard.step

    def run(self, realise: Realise) -> np.ndarray:
        return self.statistic(rows_of(self.shard, realise))


@dataclass(frozen=True, eq=False)
class Measure(Step):
    """Numbers from a metric: on a model, and on the rows sampled from it where the metric needs them."""

    metric: Metric
    model: Fit
    fresh: Shard
    seed: Seed
    history: tuple[Shard, ...] = ()  # what earlier models wrote, where the metric needs it: the first `history_rows` of each
    kind = "measure"

    @property
    def samples(self) -> Shard | None:
        return self.fresh if "samples" in self.metric.needs else None

    @cached_property
    def digest(self) -> str:
        samples = self.samples.digest if self.samples else ""
        earlier = [shard.digest for shard in self.history]
        return join(self.kind, digest_of(self.metric), self.model.digest, samples, self.seed.key.hex(), *earlier)

    def looked_back(self) -> Iterator[tuple[Shard, np.ndarray]]:
        """The rows of earlier generations that the metric reads."""
        most = getattr(self.metric, "history_rows", 0)
        return ((shard, np.arange(min(most, shard.num_rows))) for shard in self.history)

    @property
    def rebuilds(self) -> bool:  # type: ignore[override]
        return self.model.rebuilds

    def inputs(self) -> Iterator[Step]:
        yield self.model
        yield self.model.draw
        if self.samples:
            yield self.samples.step
        yield from (shard.step for shard in self.history)

    def run(self, realise: Realise) -> dict[str, float]:
        model, world = realise(self.model), realise(self.model.draw)
        samples = rows_of(self.samples, realise) if self.samples else None
        more: dict[str, Any] = {}
        if "history" in self.metric.needs:
            more["history"] = [rows_of(shard, realise, index) for shard, index in self.looked_back()]
        values = self.metric.measure(model, world=world, samples=samples, seed=self.seed, **more)
        declared = {quantity.name for quantity in self.metric.quantities}
        if unknown := set(values) - declared:
            raise ValueError(f"metric {self.metric.name!r} reports {sorted(unknown)}, which its quantities do not declare")
        for name, value in values.items():
            if not math.isfinite(value):
                raise Stopped("non-finite", f"metric {self.metric.name!r} measured {name} = {value}")
        return {name: float(value) for name, value in values.items()}


def rows_of(shard: Shard, realise: Realise, index: np.ndarray | None = None) -> Rows:
    """The rows of a shard at sorted positions `index`, or all: what its step made, or the training rows of the world it drew.

    A store may hold only some rows of a shard, with their positions in a column `refeed_position`, once the others were not needed
    any more. Where one is missing after all, the step is run again.
    """
    value = realise(shard.step)
    rows = value.train if isinstance(value, World) else value
    if POSITION not in rows.names:
        return rows if index is None else rows.take(index)
    wanted = np.arange(shard.num_rows) if index is None else index
    found = np.searchsorted(rows[POSITION], wanted)
    found = np.minimum(found, len(rows) - 1)
    if len(rows) and np.array_equal(rows[POSITION][found], wanted):
        return rows.take(found).without(POSITION)
    whole = shard.step.run(realise)
    return (whole.train if isinstance(whole, World) else whole).take(wanted)


def _expect(found: int, expected: int, who: str, what: str) -> None:
    if found != expected:
        raise ValueError(f"{who} {found} {what} where {expected} were asked for")

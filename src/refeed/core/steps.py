"""Steps: the units of work, as recipes. Building one costs microseconds and computes nothing but its digest.

A step's digest follows from the digests of what it is made from, before it runs. So a plan is complete before the first second is
spent, equal work is done once, and a store is a memo from digest to value.

    Draw(source)                     -> World
    Fit(learner, training set)       -> model
    Sample(sampler, model, n)        -> Rows
    Reduce(shard, statistic)         -> array      (kept in memory only)
    Measure(metric, model, samples)  -> numbers
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from refeed.core.errors import Stopped
from refeed.core.protocols import Data, Learner, Metric, Sampler, Source, World
from refeed.core.recipes import digest_of, join
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.core.shards import Origin, Pool, Shard

Realise = Callable[["Step"], Any]


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
        assert len(world.train) == self.source.num_rows, "a source must know its number of rows"
        return world


@dataclass(frozen=True, eq=False)
class Fit(Step):
    """A model from a training set; from scratch, or from the model `start`."""

    learner: Learner
    train: Pool
    draw: Draw
    seed: Seed
    start: Fit | None = None
    kind = "fit"

    @cached_property
    def digest(self) -> str:
        start = self.start.digest if self.start else ""
        return join(self.kind, digest_of(self.learner), self.train.digest, self.draw.digest, self.seed.key.hex(), start)

    @property
    def rebuilds(self) -> bool:  # type: ignore[override]
        return self.draw.source.rebuilds

    def inputs(self) -> Iterator[Step]:
        yield self.draw
        yield from (part.shard.step for part in self.train if part.shard.step is not self.draw)
        if self.start is not None:
            yield self.start

    def run(self, realise: Realise) -> Any:
        if not self.train.num_rows:
            raise Stopped("empty pool", "the policy left no row to train on")
        data = Data(
            self.train,
            rows_of=lambda shard: rows_of(shard, realise),
            statistic_of=lambda shard, statistic: realise(Reduce(shard, statistic)),
        )
        start = realise(self.start) if self.start is not None else None
        return self.learner.fit(data, world=realise(self.draw), seed=self.seed, start=start)


@dataclass(frozen=True, eq=False)
class Sample(Step):
    """`num_rows` rows from a model."""

    sampler: Sampler
    model: Fit
    num_rows: int
    generation: int
    seed: Seed
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

    def run(self, realise: Realise) -> Rows:
        model, world = realise(self.model), realise(self.model.draw)
        rows = self.sampler.sample(model, self.num_rows, world=world, seed=self.seed)
        assert len(rows) == self.num_rows, f"the sampler returned {len(rows)} rows for {self.num_rows}"
        if bad := rows.num_non_finite():
            raise Stopped("non-finite", f"{bad} of {len(rows)} sampled rows hold NaN or infinite values")
        return rows


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
    kind = "measure"

    @property
    def samples(self) -> Shard | None:
        return self.fresh if "samples" in self.metric.needs else None

    @cached_property
    def digest(self) -> str:
        samples = self.samples.digest if self.samples else ""
        return join(self.kind, digest_of(self.metric), self.model.digest, samples, self.seed.key.hex())

    @property
    def rebuilds(self) -> bool:  # type: ignore[override]
        return self.model.rebuilds

    def inputs(self) -> Iterator[Step]:
        yield self.model
        yield self.model.draw
        if self.samples:
            yield self.samples.step

    def run(self, realise: Realise) -> dict[str, float]:
        model, world = realise(self.model), realise(self.model.draw)
        samples = rows_of(self.samples, realise) if self.samples else None
        return self.metric.measure(model, world=world, samples=samples, seed=self.seed)


def rows_of(shard: Shard, realise: Realise) -> Rows:
    """The rows of a shard: what its step made, or the training rows of the world it drew."""
    value = realise(shard.step)
    return value.train if isinstance(value, World) else value

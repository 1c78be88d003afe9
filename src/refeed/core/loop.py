"""The loop: fit, measure, sample, update the pool, and again. It reads like the diagram in the paper.

Nothing is computed here. `turn` builds the steps of one generation as recipes; a store realises them, in memory or on disk, in one
process or on many machines. So planning is running the loop, and resuming is running it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from refeed.core.protocols import Learner, Metric, Policy, Sampler, Source
from refeed.core.seeds import Seed
from refeed.core.shards import Pool, Shard
from refeed.core.steps import Alter, Draw, Fit, Given, Measure, Sample, Step


@dataclass(frozen=True, kw_only=True, eq=False)
class Lineage:
    """One sequence of generations: one source, learner, sampler, policy and seed. The unit of replication."""

    source: Source
    learner: Learner
    sampler: Sampler
    metrics: tuple[Metric, ...]
    policy: Policy
    seed: Seed
    start: str | Given = "scratch"  # or "previous": every model goes on from the one before; or weights that each begins from
    first_learner: Learner | None = None  # of generation 1, where it is another than that of the others
    sample_parts: int = 1  # how many steps draw the rows of one model side by side, where the sampler can be divided

    @cached_property
    def draw(self) -> Draw:
        return Draw(self.source, self.seed / "source")


@dataclass(frozen=True, eq=False)
class State:
    """What is carried on: the number of the generation to be fitted next, and the rows that are kept.

    A policy sees nothing else: `pool`, the shard of `real` training rows, and how many rows were ever offered (`num_seen`).
    """

    generation: int
    pool: Pool
    real: Shard
    num_seen: int
    model: Fit | None = None  # the one before, for warm starts
    history: tuple[Shard, ...] = ()  # what every model before wrote, for metrics that look back

    def more_real(self) -> Shard:
        """Real rows that no generation has seen: as many as at the start, drawn anew. Needs a source that draws at random."""
        draw = self.real.step
        assert isinstance(draw, Draw)
        return Draw(draw.source, draw.seed / "more" / self.generation).shard


@dataclass(frozen=True, eq=False)
class Turn:
    """What one generation was: its training set, model, samples and scores, as steps."""

    generation: int
    train: Pool
    model: Fit
    sampled: Shard  # what the model wrote
    fresh: Shard  # what of it came through filters and corruptions; mostly the same
    scores: tuple[Measure, ...]

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """Every step of this generation, each after those of the same generation that it stands on."""
        draws = {self.model.draw, *(part.shard.step for part in self.train if isinstance(part.shard.step, Draw))}
        sampling: list[Step] = [self.fresh.step]
        while isinstance(sampling[0], Alter):
            sampling.insert(0, sampling[0].rows.step)
        sampling[:0] = sampling[0].parts if isinstance(sampling[0], Sample) else ()
        return (*sorted(draws, key=lambda draw: draw.digest), self.model, *sampling, *self.scores)


def start(lineage: Lineage) -> State:
    """Generation 1 is fitted on real rows only."""
    real = lineage.draw.shard
    return State(1, Pool.of(real), real, real.num_rows)


def turn(lineage: Lineage, state: State) -> tuple[State, Turn]:
    """One generation. The policy's name is not in the seed, so generation 1 is the same model under every policy."""
    seed = lineage.seed / "generation" / state.generation
    train = lineage.policy.training_set(state, seed=seed / "select")
    model = _fit(lineage, state, train, seed / "fit")
    sampled, fresh = _sample(lineage, state, model, seed)
    scores = tuple(
        Measure(metric, model, sampled, seed / "measure" / metric.name, state.history if "history" in metric.needs else ())
        for metric in lineage.metrics
    )
    pool = lineage.policy.keep(state, fresh, seed=seed / "keep")
    after = State(state.generation + 1, pool, state.real, state.num_seen + fresh.num_rows, model, (*state.history, sampled))
    return after, Turn(state.generation, train, model, sampled, fresh, scores)


def _fit(lineage: Lineage, state: State, train: Pool, seed: Seed) -> Fit:
    before = state.model if lineage.start == "previous" else None
    begin = lineage.start if isinstance(lineage.start, Given) else before
    learner = lineage.first_learner if lineage.first_learner is not None and state.generation == 1 else lineage.learner
    visits = state.real.num_rows if getattr(lineage.policy, "matches_steps", False) else None
    return Fit(learner, train, lineage.draw, seed, begin, visits, state.generation, lineage.policy)


def _sample(lineage: Lineage, state: State, model: Fit, seed: Seed) -> tuple[Shard, Shard]:
    """The rows that the model writes, and what the policy's alterations make of them, the last one giving the policy's amount."""
    alterations = getattr(lineage.policy, "alterations", ())
    amounts = [lineage.policy.amount(state)]
    for alteration in reversed(alterations):
        amounts.append(alteration.candidates(amounts[-1]))
    amount, parts = amounts.pop(), lineage.sample_parts
    sampled = fresh = Sample(lineage.sampler, model, amount, state.generation, seed / "sample", parts).shard
    for number, alteration in enumerate(alterations):
        fresh = Alter(alteration, fresh, model, amounts.pop(), seed / "alter" / number).shard
    return sampled, fresh


def turns(lineage: Lineage, generations: int) -> Iterator[Turn]:
    """The first `generations` turns of a lineage."""
    state = start(lineage)
    while state.generation <= generations:
        state, now = turn(lineage, state)
        yield now

"""What every policy is made of: an amount, what is kept, and what is trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from refeed.core.errors import StudyError
from refeed.core.loop import State
from refeed.core.seeds import Seed
from refeed.core.shards import Pool, Shard


class Amount(Protocol):
    """How many rows to sample from the model of generation `state.generation`."""

    def __call__(self, state: State) -> int: ...


class Keep(Protocol):
    """Which rows stay, once the fresh ones have arrived."""

    def __call__(self, state: State, fresh: Shard, *, seed: Seed) -> Pool: ...


class Train(Protocol):
    """Which of the kept rows the next model is fitted on, and with which weights."""

    def __call__(self, state: State, *, seed: Seed) -> Pool: ...


def at_least(name: str, value: int | None, least: int) -> None:
    """Refuse an option below `least`; None means that it was not given."""
    if value is not None and value < least:
        raise StudyError(f"{name} must be at least {least}, not {value}.", at=name)


@dataclass(frozen=True, kw_only=True)
class Composite:
    """A policy made of three parts. Generation 1 is fitted on all the real rows whatever the parts are."""

    sample: Amount
    kept: Keep
    train: Train
    draws_real: bool = False  # it asks for real rows that no generation has seen

    def amount(self, state: State) -> int:
        return self.sample(state)

    def keep(self, state: State, fresh: Shard, *, seed: Seed) -> Pool:
        return self.kept(state, fresh, seed=seed)

    def training_set(self, state: State, *, seed: Seed) -> Pool:
        return state.pool if state.generation == 1 else self.train(state, seed=seed)

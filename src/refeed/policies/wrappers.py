"""Wrappers: a policy with something added, never overridden."""

from __future__ import annotations

from dataclasses import dataclass

from refeed.core.loop import State
from refeed.core.protocols import Alteration, Policy
from refeed.core.seeds import Seed
from refeed.core.shards import Pool, Shard
from refeed.policies.presets import accumulate


@dataclass(frozen=True, kw_only=True)
class Wrapped:
    """`policy`, with alterations between sampling and keeping, or trained for as many steps as generation 1 (`matches_steps`)."""

    policy: Policy
    alterations: tuple[Alteration, ...] = ()
    matches_steps: bool = False

    @property
    def draws_real(self) -> bool:
        return getattr(self.policy, "draws_real", False)

    def amount(self, state: State) -> int:
        return self.policy.amount(state)

    def keep(self, state: State, fresh: Shard, *, seed: Seed) -> Pool:
        return self.policy.keep(state, fresh, seed=seed)

    def training_set(self, state: State, *, seed: Seed) -> Pool:
        return self.policy.training_set(state, seed=seed)


def accumulate_matched_steps() -> Wrapped:
    """The control: accumulate, but every model is trained for as many steps as that of generation 1.

    It tells what accumulate gains by its data from what it gains by training longer on them.
    """
    return Wrapped(policy=accumulate(), matches_steps=True)

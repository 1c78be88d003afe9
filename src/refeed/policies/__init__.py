"""Policies: objects that decide how many rows to sample, what stays, and what the next model learns from."""

from refeed.policies.parts import Composite
from refeed.policies.presets import (
    accumulate,
    accumulate_subsample,
    fixed_real,
    forgetting,
    fresh_real,
    growing,
    pinned_reservoir,
    real_only,
    real_share,
    real_share_floor,
    replace,
    replace_multiple,
    reservoir,
    strata,
    weighted_fresh_real,
    window,
)

__all__ = [
    "Composite",
    "accumulate",
    "accumulate_subsample",
    "fixed_real",
    "forgetting",
    "fresh_real",
    "growing",
    "pinned_reservoir",
    "real_only",
    "real_share",
    "real_share_floor",
    "replace",
    "replace_multiple",
    "reservoir",
    "strata",
    "weighted_fresh_real",
    "window",
]

"""Policies: objects that decide how many rows to sample, what stays, and what the next model learns from."""

from refeed.policies.parts import Composite
from refeed.policies.presets import accumulate, accumulate_subsample, replace, replace_multiple

__all__ = ["Composite", "accumulate", "accumulate_subsample", "replace", "replace_multiple"]

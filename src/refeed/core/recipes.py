"""What a thing is made of, as plain data, and its digest.

Sources, learners, samplers, metrics and policies are frozen dataclasses that hold hyperparameters only. Their *recipe* is the
class, the version of the code that interprets it, and the fields; its digest is the identity that the workspace memoises by.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from pathlib import PurePath
from typing import Any

import numpy as np


def recipe(thing: Any) -> Any:
    """`thing` as JSON data that says all that can change a result, and nothing else.

    A class may define `version: ClassVar[int]`, bumped when its results change, and `identity()`, which returns the fields that
    matter where they are not simply its fields (a text file is its content, not its path).
    """
    if isinstance(thing, float) and thing.is_integer():
        return int(thing)  # 1 and 1.0 are one recipe
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    if isinstance(thing, np.generic):
        return thing.item()
    if isinstance(thing, PurePath):
        return str(thing)
    if isinstance(thing, Mapping):
        return {str(key): recipe(value) for key, value in thing.items()}
    if isinstance(thing, tuple | list | frozenset | set):
        items = [recipe(item) for item in thing]
        return sorted(items, key=json.dumps) if isinstance(thing, frozenset | set) else items
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        kind = type(thing)
        if hasattr(thing, "identity"):
            fields = thing.identity()
        else:
            fields = {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)}
        head = {"kind": f"{kind.__module__}:{kind.__qualname__}", "version": getattr(kind, "version", 1)}
        return head | {name: recipe(value) for name, value in fields.items()}
    raise TypeError(
        f"{type(thing).__module__}.{type(thing).__qualname__} cannot be part of a recipe: make it a frozen dataclass "
        "of numbers, strings and other such dataclasses, so that runs can be told apart and repeated"
    )


def digest(*parts: Any) -> str:
    """The identity of a sequence of recipes: 32 hexadecimal digits of BLAKE2b over their canonical JSON."""
    return blake2b(canonical(parts), digest_size=16, person=b"refeed.recipe").hexdigest()


def canonical(thing: Any) -> bytes:
    """Canonical JSON: sorted keys, no spaces, shortest round-trip floats."""
    return json.dumps(recipe(thing), sort_keys=True, separators=(",", ":"), allow_nan=True).encode()


def digest_of(thing: Any) -> str:
    """The digest of one recipe object, remembered, since a lineage asks for the same few objects all the time."""
    return _remembered(thing)


@lru_cache(maxsize=4096)
def _remembered(thing: Any) -> str:
    return digest(thing)


def join(kind: str, *digests: str) -> str:
    """The digest of a step from its kind and the digests of what it is made from; two microseconds."""
    return blake2b("\0".join((kind, *digests)).encode(), digest_size=16, person=b"refeed.step").hexdigest()

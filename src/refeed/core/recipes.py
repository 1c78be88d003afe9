"""What a thing is made of, as plain data, and its digest.

Sources, learners, samplers, metrics and policies are frozen dataclasses that hold hyperparameters only. Their *recipe* is the
class, the version of the code that interprets it, and the fields; its digest is the identity that the workspace memoises by.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import PurePath
from typing import Any

import numpy as np


def recipe(thing: Any) -> Any:
    """`thing` as JSON data that says all that can change a result, and nothing else.

    A class may define `version: ClassVar[int]`, bumped when its results change, and `identity()`, which returns the fields that
    matter where they are not simply its fields (a text file is its content, not its path).
    """
    if isinstance(thing, np.generic):
        thing = thing.item()
    if isinstance(thing, float) and thing.is_integer():
        return int(thing)  # 1 and 1.0 are one recipe
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    if isinstance(thing, PurePath):
        return str(thing)
    if isinstance(thing, Mapping):
        if not all(isinstance(key, str) for key in thing):
            raise TypeError(f"keys of a recipe must be strings, but they are {list(thing)}")
        return {key: recipe(value) for key, value in thing.items()}
    if isinstance(thing, tuple | list | frozenset | set):
        items = [recipe(item) for item in thing]
        return sorted(items, key=json.dumps) if isinstance(thing, frozenset | set) else items
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        kind = type(thing)
        if hasattr(thing, "identity"):
            fields = thing.identity()
        else:
            fields = {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)}
        module = "__main__" if kind.__module__ == "__mp_main__" else kind.__module__  # its name in a spawned process
        head = {"kind": f"{module}:{kind.__qualname__}", "version": getattr(kind, "version", 1)}
        return head | {"fields": {name: recipe(value) for name, value in fields.items()}}
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
    """The digest of one recipe object, remembered on the object, since a lineage asks for the same few objects all the time."""
    remembered = getattr(thing, "__dict__", {})
    found = remembered.get("_refeed_digest")
    if found is None:
        found = digest(thing)
        if not hasattr(thing, "identity") and dataclasses.is_dataclass(thing):  # an identity may depend on the world outside
            remembered["_refeed_digest"] = found
    return str(found)


def join(kind: str, *digests: str) -> str:
    """The digest of a step from its kind and the digests of what it is made from; two microseconds."""
    return blake2b("\0".join((kind, *digests)).encode(), digest_size=16, person=b"refeed.step").hexdigest()

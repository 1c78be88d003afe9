"""How many devices the running step may use. One, unless whoever runs it says otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Devices:
    """What a step may spread over: `count` devices, each with a process of `threads` threads.

    `sharded`: whether each device holds a part of the weights only, or all of them; if left out, a part where all do not fit.
    A learner that spreads its fit names "devices" in `provides`, and its results depend on the number no more than on the order of
    sums in floating point.
    """

    count: int = 1
    threads: int = 1
    sharded: bool | None = None


ONE = Devices()
_granted: ContextVar[Devices] = ContextVar("refeed.devices", default=ONE)


def granted() -> Devices:
    """What the running step may use."""
    return _granted.get()


@contextmanager
def grant(devices: Devices) -> Iterator[None]:
    """Inside the block, the running step may use `devices`."""
    token = _granted.set(devices)
    try:
        yield
    finally:
        _granted.reset(token)

"""How many devices the running step may use. One, unless whoever runs it says otherwise."""

from __future__ import annotations

import os
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
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
_granted: ContextVar[Devices] = ContextVar("refeed.devices", default=ONE)


def threads(number: int) -> dict[str, str]:
    """The environment variables from which a process's numerical libraries read, when it starts, how many threads to use.

    And how long a thread spins until it sleeps while it waits for another (of GNU's OpenMP), unless ours say so: as long as a
    barrier takes on a machine of our own, and not for as long as another process keeps the other thread off its processor.
    """
    number_of = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(number))
    waiting = {name: os.environ[name] for name in WAITING if name in os.environ}
    return number_of | (waiting or {"GOMP_SPINCOUNT": "1000"})


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

"""How far a long step is: a learner or sampler ticks, whoever listens is told. Nothing happens where nobody does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[float, float, str], None]

_listener: ContextVar[Listener | None] = ContextVar("refeed.progress", default=None)


def tick(done: float, total: float, unit: str) -> None:
    """`done` of `total` units of the running step are finished."""
    listener = _listener.get()
    if listener is not None:
        listener(done, total, unit)


@contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """Inside the block, ticks of this thread go to `listener(done, total, unit)`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)

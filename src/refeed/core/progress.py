"""How far a long step is: a learner or sampler ticks, whoever listens is told. Nothing happens where nobody does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[float, float, str, str], None]

_listener: ContextVar[Listener | None] = ContextVar("refeed.progress", default=None)


def tick(done: float, total: float, unit: str, note: str = "") -> None:
    """`done` of `total` units of the running step are finished; `note` says how it goes: a loss, a rate."""
    listener = _listener.get()
    if listener is not None:
        listener(done, total, unit, note)


def heard() -> bool:
    """Whether anybody listens: if not, a note need not be worked out."""
    return _listener.get() is not None


@contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """Inside the block, ticks of this thread go to `listener(done, total, unit, note)`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)

"""A memo in memory: realises steps recursively and remembers what they made."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from refeed.core.protocols import World
from refeed.core.rows import Rows
from refeed.core.steps import Step


class Memory:
    """A memo from digest to value.

    Beyond `max_bytes`, what can be had again is forgotten, least recently used first: rows that are cheap to rebuild, and
    (`backed=True`, when a disk holds them) everything. What is forgotten is made again on demand, so the limit changes time, never
    results.
    """

    def __init__(self, *, max_bytes: int = 256 * 2**20, backed: bool = False) -> None:
        self._kept: dict[str, Any] = {}
        self._loose: OrderedDict[str, Any] = OrderedDict()
        self._loose_bytes = 0
        self._max_bytes = max_bytes
        self._backed = backed

    def realise(self, step: Step) -> Any:
        """The value of `step`, made now if it is not remembered."""
        value = self.recall(step)
        if value is None:
            value = step.run(self.realise)
            self.remember(step, value)
        return value

    def recall(self, step: Step) -> Any | None:
        digest = step.digest
        value = self._kept.get(digest)
        if value is None and (value := self._loose.get(digest)) is not None:
            self._loose.move_to_end(digest)
        return value

    def forget(self, step: Step) -> None:
        """Let go of the value of `step`."""
        self._kept.pop(step.digest, None)
        if (value := self._loose.pop(step.digest, None)) is not None:
            self._loose_bytes -= _num_bytes(value)

    def remember(self, step: Step, value: Any) -> None:
        if not self._backed and not (step.rebuilds and isinstance(value, Rows | World)):
            self._kept[step.digest] = value
            return
        if (before := self._loose.pop(step.digest, None)) is not None:
            self._loose_bytes -= _num_bytes(before)
        self._loose[step.digest] = value
        self._loose_bytes += _num_bytes(value)
        while self._loose_bytes > self._max_bytes and len(self._loose) > 1:
            _, oldest = self._loose.popitem(last=False)
            self._loose_bytes -= _num_bytes(oldest)


def _num_bytes(value: Any) -> int:
    if isinstance(value, World):
        return _num_bytes(value.train) + _num_bytes(value.test)
    if isinstance(value, Rows):
        return value.resident_bytes
    return int(getattr(value, "nbytes", 2**20))

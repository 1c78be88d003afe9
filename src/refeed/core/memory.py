"""A store in memory: realises steps recursively and remembers what they made."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from refeed.core.rows import Rows
from refeed.core.steps import Step


class Memory:
    """A memo from digest to value. Rows that can be rebuilt are dropped, oldest first, beyond `max_row_bytes`."""

    def __init__(self, *, max_row_bytes: int = 256 * 2**20) -> None:
        self._values: dict[str, Any] = {}
        self._rows: OrderedDict[str, Rows] = OrderedDict()
        self._row_bytes = 0
        self._max_row_bytes = max_row_bytes

    def realise(self, step: Step) -> Any:
        """The value of `step`, made now if it is not remembered."""
        value = self.recall(step)
        if value is None:
            value = step.run(self.realise)
            self.remember(step, value)
        return value

    def recall(self, step: Step) -> Any | None:
        value = self._values.get(step.digest)
        return self._rows.get(step.digest) if value is None else value

    def remember(self, step: Step, value: Any) -> None:
        if not (step.rebuilds and isinstance(value, Rows)):
            self._values[step.digest] = value
            return
        self._rows[step.digest] = value
        self._row_bytes += value.nbytes
        while self._row_bytes > self._max_row_bytes and len(self._rows) > 1:
            _, oldest = self._rows.popitem(last=False)
            self._row_bytes -= oldest.nbytes

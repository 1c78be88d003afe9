"""The order in which a fit visits its rows, the same for every family that trains in batches of rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from refeed.core.seeds import Seed


def batches(num_rows: int, *, batch: int, num_steps: int, seed: Seed) -> Iterator[np.ndarray]:
    """Positions of each step's rows: shuffled anew each epoch, every row once an epoch."""
    step = epoch = 0
    while step < num_steps:
        order = (seed / epoch).generator().permutation(num_rows)
        for first in range(0, num_rows, batch):
            if step == num_steps:
                return
            yield order[first : first + batch]
            step += 1
        epoch += 1

"""What a training set inherits: how far its rows are from real data, and how many real rows it is worth."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from refeed.core.loop import Turn
from refeed.core.shards import Pool, Shard


def unique_rows(pool: Pool) -> int:
    """How many different rows (shard, position) a pool names."""
    chosen: dict[str, list[np.ndarray | None]] = {}
    sizes: dict[str, int] = {}
    for part in pool:
        chosen.setdefault(part.shard.digest, []).append(part.index)
        sizes[part.shard.digest] = part.shard.num_rows
    total = 0
    for digest, indexes in chosen.items():
        some = [index for index in indexes if index is not None]
        if len(some) < len(indexes):
            total += sizes[digest]
        else:
            total += len(some[0]) if len(some) == 1 else len(np.unique(np.concatenate(some)))
    return total


def real_weight(pool: Pool) -> float:
    """The share of the training weight that real rows have, in [0, 1]; NaN for an empty pool."""
    total = _weight(pool)
    return _weight(pool.where(real=True)) / total if total else float("nan")


def _weight(pool: Pool) -> float:
    return sum(part.weight * part.num_rows for part in pool)


class Ancestry:
    """The models of one lineage, and what each was fitted on."""

    def __init__(self, turns: Iterable[Turn]) -> None:
        self._train = {turn.model.digest: turn.train for turn in turns}  # the earliest first
        self._order = {model: number for number, model in enumerate(self._train)}
        self._depths: dict[str, float] = {}
        for model, train in self._train.items():
            self._depths[model] = self.depth(train)

    def depth(self, pool: Pool) -> float:
        """The weighted mean over rows of the number of models between a row and real data.

        0 for a real row; 1 + the depth of its model's training set for a sampled one.
        """
        total = _weight(pool)
        depths = sum(part.weight * part.num_rows * self._depth(part.shard) for part in pool)
        return depths / total if total else float("nan")

    def _depth(self, shard: Shard) -> float:
        return 0.0 if shard.origin.model is None else 1.0 + self._depths[shard.origin.model]

    def effective_rows(self, pool: Pool) -> float:
        """How many fresh real rows would fix a mean as precisely as this training set does.

        1 / sum c^2 over every row ever born, where c is the share that the row's own deviation has in the weighted mean of the
        training set: directly, and through the models that were fitted on it (a model's samples scatter around the mean of its
        training set). Kish's effective sample size, carried through the chain. With n rows a generation: n / g for replace,
        n / (1 + 1/4 + ... + 1/g^2) for accumulate. Exact for the mean of rows of equal variance, and for least squares in the
        limit of many rows; for other models a yardstick.
        """
        uniform: dict[str, float] = {}
        chosen: dict[str, np.ndarray] = {}
        sizes: dict[str, int] = {}
        influence = {"": 1.0}
        pools = self._train | {"": pool}
        while influence:
            model = max(influence, key=lambda name: self._order.get(name, len(self._order)))
            share, train = influence.pop(model), pools[model]
            total = _weight(train)
            if not total:
                return 0.0
            for part in train:
                digest, each = part.shard.digest, share * part.weight / total
                sizes[digest] = part.shard.num_rows
                if part.index is None:
                    uniform[digest] = uniform.get(digest, 0.0) + each
                else:
                    chosen.setdefault(digest, np.zeros(part.shard.num_rows))[part.index] += each
                if part.shard.origin.model is not None:
                    parent = part.shard.origin.model
                    influence[parent] = influence.get(parent, 0.0) + each * part.num_rows
        squares = sum(
            float(((chosen[digest] + uniform.get(digest, 0.0)) ** 2).sum()) if digest in chosen else size * uniform[digest] ** 2
            for digest, size in sizes.items()
        )
        return 1 / squares if squares else 0.0

"""A training set of images as a learner is given it."""

from __future__ import annotations

import numpy as np

from refeed.core.loop import Lineage
from refeed.core.protocols import Data
from refeed.core.seeds import Seed
from refeed.core.shards import Part, Pool
from refeed.policies import replace


def data_of(source, world, weights=(1.0,)):
    """The training rows of a world as what a learner is given: cut into one part a weight, in order."""
    lineage = Lineage(source=source, learner=None, sampler=None, metrics=(), policy=replace(), seed=Seed(0))
    parts = np.array_split(np.arange(len(world.train)), len(weights))
    pool = Pool(Part(lineage.draw.shard, index, weight) for index, weight in zip(parts, weights, strict=True))
    return Data(
        pool,
        rows_of=lambda part: world.train if part.index is None else world.train.take(part.index),
        statistic_of=lambda shard, statistic: statistic(world.train),
    )

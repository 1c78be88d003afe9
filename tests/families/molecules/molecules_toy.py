"""A training set of conformers as a learner is given it, and a network that is random and nothing else."""

from __future__ import annotations

import numpy as np
import torch

from refeed.core.loop import Lineage
from refeed.core.protocols import Data
from refeed.core.seeds import Seed
from refeed.core.shards import Part, Pool
from refeed.families.molecules.nets import DualEncoder
from refeed.policies import replace


def data_of(source, world, weights=(1.0,), rows=None):
    """Rows of a world as what a learner is given: cut into one part a weight, in order."""
    rows = world.train if rows is None else rows
    lineage = Lineage(source=source, learner=None, sampler=None, metrics=(), policy=replace(), seed=Seed(0))
    parts = np.array_split(np.arange(len(rows)), len(weights))
    pool = Pool(Part(lineage.draw.shard, index, weight) for index, weight in zip(parts, weights, strict=True))
    return Data(
        pool,
        rows_of=lambda part: rows if part.index is None else rows.take(part.index),
        statistic_of=lambda shard, statistic: statistic(rows),
    )


def random_net(seed=0, **sizes):
    """A network in float64 with weights from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DualEncoder(**sizes).double().eval()


def rotation(*, mirrored=False, seed=0):
    """A random orthogonal matrix of determinant 1, or -1."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))
    return q * np.sign(np.linalg.det(q)) * (-1 if mirrored else 1)

"""A small world and a model fitted on it, once for the whole folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from refeed.core.loop import Lineage
from refeed.core.protocols import Data
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.core.shards import Part, Pool
from refeed.families.language.learner import GPT2, Llama
from refeed.families.language.sampler import Ancestral
from refeed.families.language.source import StoryGrammar
from refeed.policies import replace

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def small():
    """The shape and training of a network that fits in a second."""
    return {
        "width": 32,
        "layers": 1,
        "heads": 2,
        "context": 80,
        "feed_forward": 64,
        "learning_rate": 1e-2,
        "batch_tokens": 320,
    }


def data_of(source, world, weights):
    """The training rows of a world as what a learner is given: cut into one part a weight, in order."""
    lineage = Lineage(source=source, learner=None, sampler=None, metrics=(), policy=replace(), seed=Seed(0))
    parts = np.array_split(np.arange(len(world.train)), len(weights))
    pool = Pool(Part(lineage.draw.shard, index, weight) for index, weight in zip(parts, weights, strict=True))
    return Data(
        pool,
        rows_of=lambda part: world.train if part.index is None else world.train.take(part.index),
        statistic_of=lambda shard, statistic: statistic(world.train),
    )


@pytest.fixture(scope="session")
def source():
    return StoryGrammar(rows=150, test_rows=60)


@pytest.fixture(scope="session")
def world(source):
    return source.draw(seed=Seed(0) / "source")


@pytest.fixture(scope="session")
def weighted(source, world):
    """The training rows cut into one part a weight."""
    return lambda *weights: data_of(source, world, weights)


@pytest.fixture(scope="session")
def data(weighted):
    return weighted(1.0)


@pytest.fixture(scope="session", params=[GPT2, Llama], ids=["gpt2", "llama"])
def learner(request, small):
    return request.param(**small, epochs=3)


@pytest.fixture(scope="session")
def model(learner, data, world):
    return learner.fit(data, world=world, seed=Seed(1))


@pytest.fixture(scope="session")
def samples(model, world) -> Rows:
    return Ancestral().sample(model, 150, world=world, seed=Seed(2))


@pytest.fixture(scope="session")
def tinystories() -> Path:
    path = Path(__file__).parents[4] / "shared/data/tinystories/TinyStoriesV2-GPT4-train.head.txt"
    if not path.exists():
        pytest.skip("the TinyStories sample is not beside this checkout")
    return path

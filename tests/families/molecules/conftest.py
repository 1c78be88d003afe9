"""A small world of conformers and a model fitted on it, once for the whole folder."""

from __future__ import annotations

import pytest
import torch
from molecules_toy import data_of

from refeed.core.seeds import Seed
from refeed.families.molecules.learner import GeoDiff
from refeed.families.molecules.sampler import Strided
from refeed.families.molecules.source import Conformers

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFEED_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def source(own_cache):
    return Conformers(molecules=8, test_molecules=3, conformers=2)


@pytest.fixture(scope="session")
def world(source):
    return source.draw(seed=Seed(0) / "source")


@pytest.fixture(scope="session")
def data(source, world):
    return data_of(source, world)


@pytest.fixture(scope="session")
def learner():
    return GeoDiff(hidden=16, interactions=1, convolutions=2, steps=120, batch=16, learning_rate=3e-3, schedule="constant")


@pytest.fixture(scope="session")
def model(learner, data, world):
    return learner.fit(data, world=world, seed=Seed(1))


@pytest.fixture(scope="session")
def samples(model, world):
    return Strided(steps=40).sample(model, 16, world=world, seed=Seed(2))

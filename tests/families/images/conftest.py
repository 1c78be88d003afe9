"""A small world of drawn faces and a model fitted on it, once for the whole folder."""

from __future__ import annotations

import pytest
import torch
from images_toy import data_of

from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.families.images.learner import VAE
from refeed.families.images.sampler import Prior
from refeed.families.images.source import Faces

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REFEED_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def source():
    return Faces(rows=300, test_rows=120, size=16)


@pytest.fixture(scope="session")
def world(source):
    return source.draw(seed=Seed(0) / "source")


@pytest.fixture(scope="session")
def data(source, world):
    return data_of(source, world)


@pytest.fixture(scope="session")
def learner():
    return VAE(channels=(16, 32), latent=6, head=8, steps=60)


@pytest.fixture(scope="session")
def model(learner, data, world):
    return learner.fit(data, world=world, seed=Seed(1))


@pytest.fixture(scope="session")
def samples(model, world) -> Rows:
    return Prior().sample(model, 200, world=world, seed=Seed(2))

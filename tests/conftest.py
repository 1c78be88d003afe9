"""Shared set-up: one thread, no network, and small real objects from the product."""

from __future__ import annotations

import os
import tempfile

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
_cache = tempfile.TemporaryDirectory(prefix="refeed-cache-")
os.environ["REFEED_CACHE"] = _cache.name

import hypothesis  # noqa: E402
import pytest  # noqa: E402

from refeed import policies  # noqa: E402
from refeed.core.loop import Lineage  # noqa: E402
from refeed.core.seeds import Seed  # noqa: E402
from refeed.families.regression.learner import LeastSquares  # noqa: E402
from refeed.families.regression.metrics import ExcessRisk  # noqa: E402
from refeed.families.regression.sampler import Relabel  # noqa: E402
from refeed.families.regression.source import Linear  # noqa: E402
from refeed.studies import Case, Study  # noqa: E402

hypothesis.settings.register_profile("any machine", deadline=None)  # a busy machine is not an error
hypothesis.settings.load_profile("any machine")


@pytest.fixture
def lineage():
    def make(policy=None, *, seed=0, rows=30, dimension=3, **options):
        return Lineage(
            source=Linear(dimension=dimension, rows=rows),
            learner=options.pop("learner", LeastSquares()),
            sampler=options.pop("sampler", Relabel()),
            metrics=options.pop("metrics", (ExcessRisk(),)),
            policy=policy or policies.accumulate(),
            seed=Seed(seed),
            **options,
        )

    return make


@pytest.fixture
def regression_study():
    def make(*, rows=30, dimension=3, seeds=(0, 1, 2), generations=3, names=("replace", "accumulate"), **options):
        presets = {
            "replace": policies.replace(),
            "accumulate": policies.accumulate(),
            "replace-multiple": policies.replace_multiple(),
            "accumulate-subsample": policies.accumulate_subsample(),
        }
        case = Case(
            name="regression",
            family="regression",
            source=Linear(dimension=dimension, rows=rows),
            learner=LeastSquares(),
            sampler=options.pop("sampler", Relabel()),
            metrics=(ExcessRisk(),),
        )
        return Study(
            cases=(case,), policies={name: presets[name] for name in names}, seeds=seeds, generations=generations, **options
        )

    return make

"""Kernel density estimates of small clouds of points: the family whose bandwidth acts again in every generation."""

from refeed.core.protocols import Family
from refeed.families.kde.learner import Kernel
from refeed.families.kde.metrics import LogLoss, SquaredError
from refeed.families.kde.sampler import Resample
from refeed.families.kde.source import Cloud

FAMILY = Family(
    name="kde",
    about="Gaussian kernel density estimates of circles, moons, rolls and blobs; arXiv:2410.16713",
    sources={"cloud": "refeed.families.kde.source:Cloud"},
    learners={"kernel": "refeed.families.kde.learner:Kernel"},
    samplers={"resample": "refeed.families.kde.sampler:Resample"},
    metrics={
        "log_loss": "refeed.families.kde.metrics:LogLoss",
        "squared_error": "refeed.families.kde.metrics:SquaredError",
    },
    default={"source": "cloud", "learner": "kernel", "sampler": "resample", "metrics": ["log_loss"]},
)

__all__ = ["FAMILY", "Cloud", "Kernel", "LogLoss", "Resample", "SquaredError"]

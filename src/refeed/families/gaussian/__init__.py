"""Gaussians in any dimension: exact, cheap, with closed-form theory for the fitted mean and covariance."""

from refeed.core.protocols import Family
from refeed.families.gaussian.learner import Gaussian
from refeed.families.gaussian.metrics import Divergence, Moments
from refeed.families.gaussian.sampler import Draws
from refeed.families.gaussian.source import Normal

FAMILY = Family(
    name="gaussian",
    about="a mean and a covariance, fitted again and again; Figure 1 of the follow-up, arXiv:2410.16713",
    sources={"normal": "refeed.families.gaussian.source:Normal"},
    learners={"gaussian": "refeed.families.gaussian.learner:Gaussian"},
    samplers={"draws": "refeed.families.gaussian.sampler:Draws"},
    metrics={
        "moments": "refeed.families.gaussian.metrics:Moments",
        "divergence": "refeed.families.gaussian.metrics:Divergence",
    },
    default={"source": "normal", "learner": "gaussian", "sampler": "draws", "metrics": ["divergence", "moments"]},
)

__all__ = ["FAMILY", "Divergence", "Draws", "Gaussian", "Moments", "Normal"]

"""Linear regression: exact, cheap, with closed-form theory for most policies."""

from refeed.core.protocols import Family
from refeed.families.regression.learner import LeastSquares, Ridge
from refeed.families.regression.metrics import ExcessRisk
from refeed.families.regression.sampler import Relabel
from refeed.families.regression.source import Linear

FAMILY = Family(
    name="regression",
    about="y = x.w* + noise, fitted by least squares or ridge; the paper's section with proof",
    sources={"linear": "refeed.families.regression.source:Linear"},
    learners={
        "ols": "refeed.families.regression.learner:LeastSquares",
        "ridge": "refeed.families.regression.learner:Ridge",
    },
    samplers={"relabel": "refeed.families.regression.sampler:Relabel"},
    metrics={"excess_risk": "refeed.families.regression.metrics:ExcessRisk"},
    default={"source": "linear", "learner": "ols", "sampler": "relabel", "metrics": ["excess_risk"]},
)

__all__ = ["FAMILY", "ExcessRisk", "LeastSquares", "Linear", "Relabel", "Ridge"]

"""Categorical distributions and n-gram chains: the smallest models that forget rare things."""

from refeed.core.protocols import Family
from refeed.families.categorical.learner import Frequencies, NGram
from refeed.families.categorical.metrics import Chain, Symbols
from refeed.families.categorical.sampler import Draws
from refeed.families.categorical.source import Sequences, Zipf

FAMILY = Family(
    name="categorical",
    about="symbols and n-gram chains refitted by counting: Wright-Fisher drift, and the tails that it loses",
    sources={
        "zipf": "refeed.families.categorical.source:Zipf",
        "sequences": "refeed.families.categorical.source:Sequences",
    },
    learners={
        "frequencies": "refeed.families.categorical.learner:Frequencies",
        "ngram": "refeed.families.categorical.learner:NGram",
    },
    samplers={"draws": "refeed.families.categorical.sampler:Draws"},
    metrics={
        "symbols": "refeed.families.categorical.metrics:Symbols",
        "chain": "refeed.families.categorical.metrics:Chain",
    },
    default={"source": "zipf", "learner": "frequencies", "sampler": "draws", "metrics": ["symbols"]},
)

__all__ = ["FAMILY", "Chain", "Draws", "Frequencies", "NGram", "Sequences", "Symbols", "Zipf"]

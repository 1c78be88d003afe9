"""Gaussian, kernel and categorical loops three ways: the loop with its rows, the closed forms, the fast simulators.

Means over lineages against the law that the metric names, z = 4, about 100 comparisons: a false alarm in below 1 % of fresh seeds.
Laws of the last generation against the simulator by Kolmogorov-Smirnov at p < 1e-4. Seeds are fixed, so a pass stays a pass.
"""

import re

import numpy as np
import pytest
from scipy.stats import ks_2samp

from refeed import catalogue
from refeed.core.loop import Lineage, turns
from refeed.core.memory import Memory
from refeed.core.seeds import Seed
from refeed.families.categorical import Draws, Frequencies, Symbols, Zipf
from refeed.families.categorical.source import zipf
from refeed.families.gaussian import Divergence, Gaussian, Moments, Normal
from refeed.families.gaussian import Draws as GaussianDraws
from refeed.families.kde import Cloud, Kernel, Resample, SquaredError
from refeed.families.regression import ExcessRisk, LeastSquares, Linear, Relabel, Ridge
from refeed.theory import evaluate, simulate

N = 5
LOOSE = re.compile("branching|asymptotic|subsample$")  # limits, allowed a tenth at these sizes


def scores(policy, *, source, learner, sampler, metrics, lineages):
    """quantity -> values, shape (lineages, N); and the laws that the metrics name."""
    found, memory = {}, Memory()
    for seed in range(lineages):
        lineage = Lineage(
            source=source,
            learner=learner,
            sampler=sampler,
            metrics=metrics,
            policy=catalogue.build(policy, catalogue.policies(), "policy"),
            seed=Seed(seed),
        )
        for turn in turns(lineage, N):
            for step in turn.scores:
                for name, value in memory.realise(step).items():
                    found.setdefault(name, np.empty((lineages, N)))[seed, turn.generation - 1] = value
    setting = {"source": source, "learner": learner, "sampler": sampler}
    return found, [law for metric in metrics for law in metric.laws(policy, **setting)]


def agree(found, laws, *, least):
    """Every law named is one that exact loops fit; `least` says how many there must be."""
    assert len(laws) >= least
    for entry in laws:
        law = evaluate(entry["law"], **entry["parameters"], **({} if entry["law"].endswith("survivors_accumulate") else {"n": N}))
        values = found[entry["quantity"]]
        error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
        slack = 0.1 * np.abs(law) if LOOSE.search(entry["law"]) else 0.0
        z = np.maximum(np.abs(values.mean(axis=0) - law) - slack, 0) / np.maximum(error, 1e-12)
        assert z.max() < 4, (entry, z)


@pytest.mark.parametrize("policy", ["replace", "accumulate", "accumulate-subsample", "reservoir", "fixed-real"])
@pytest.mark.parametrize(("d", "temperature"), [(1, 1.0), (3, 0.7)])
def test_gaussian_by_maximum_likelihood(policy, d, temperature):
    parts = {"source": Normal(dimension=d, rows=9), "learner": Gaussian(), "sampler": GaussianDraws(temperature=temperature)}
    found, laws = scores(policy, **parts, metrics=(Moments(),), lineages=300)
    agree(found, laws, least=1)
    if policy in ("replace", "accumulate"):
        fast = simulate.gaussian(d=d, T=9, n=N, policy=policy, temperature=temperature, runs=4000, seed=1)
        assert ks_2samp(found["variance"][:, -1], fast.trace[:, -1] / d).pvalue > 1e-4
        assert ks_2samp(found["mean_error"][:, -1], fast.mean_error[:, -1] / d).pvalue > 1e-4


@pytest.mark.parametrize("policy", ["replace", "accumulate"])
def test_gaussian_unbiased(policy):
    parts = {"source": Normal(dimension=2, rows=14), "learner": Gaussian(estimator="unbiased"), "sampler": GaussianDraws()}
    found, laws = scores(policy, **parts, metrics=(Moments(), Divergence()), lineages=400)
    agree(found, laws, least=2)
    fast = simulate.gaussian(d=2, T=14, n=N, policy=policy, estimator="unbiased", runs=4000, seed=2)
    assert ks_2samp(found["kl_truth_model"][:, -1], fast.kl_truth_model[:, -1]).pvalue > 1e-4


@pytest.mark.parametrize("policy", ["replace", "accumulate"])
def test_kernel(policy):
    parts = {"source": Cloud(shape="normal", rows=20), "learner": Kernel(bandwidth=0.4), "sampler": Resample()}
    found, laws = scores(policy, **parts, metrics=(SquaredError(),), lineages=250)
    agree(found, laws, least=1)
    fast = simulate.kde(T=20, h=0.4, n=N, policy=policy, runs=1000, seed=3)
    assert ks_2samp(found["squared_error"][:, -1], fast[:, -1]).pvalue > 1e-4


@pytest.mark.parametrize("policy", ["replace", "accumulate"])
def test_categorical(policy):
    parts = {"source": Zipf(num_symbols=30, beta=1.1, rows=25), "learner": Frequencies(), "sampler": Draws()}
    found, laws = scores(policy, **parts, metrics=(Symbols(),), lineages=400)
    agree(found, laws, least=2)
    p = zipf(30, 1.1)
    fast = simulate.wright_fisher(p=p, T=25, n=N, policy=policy, runs=4000, seed=4)[:, -1]
    assert ks_2samp(found["heterozygosity"][:, -1], (1 - (fast**2).sum(1)) / (1 - p @ p)).pvalue > 1e-4


@pytest.mark.parametrize(
    ("policy", "learner"),
    [
        ("fresh-real", LeastSquares()),
        ("fixed-real", LeastSquares()),
        ("accumulate-subsample", LeastSquares()),
        ("replace", Ridge(penalty=4.0)),
        ("accumulate", Ridge(penalty=4.0)),
    ],
)
def test_regression_beyond_the_two_policies_of_the_paper(policy, learner):
    rows = 300 if policy == "accumulate-subsample" else 24
    parts = {"source": Linear(dimension=4, rows=rows, noise=1.5, signal=2.0), "learner": learner, "sampler": Relabel()}
    found, laws = scores(policy, **parts, metrics=(ExcessRisk(),), lineages=400)
    agree(found, laws, least=1)

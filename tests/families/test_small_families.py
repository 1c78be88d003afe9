"""The exact families: fits by hand, weights that count, mistakes that are named, models that come back bit for bit."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from refeed import catalogue
from refeed.core.errors import Stopped, StudyError
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.families.categorical import Chain, Frequencies, NGram, Sequences, Symbols, Zipf
from refeed.families.categorical import Draws as SymbolDraws
from refeed.families.categorical.learner import SymbolModel
from refeed.families.gaussian import Divergence, Draws, Gaussian, Normal
from refeed.families.gaussian.learner import GaussianModel
from refeed.families.kde import Cloud, Kernel, LogLoss, Resample, SquaredError
from refeed.families.kde.source import SHAPES


class Given:
    """A training set of weighted rows, without a loop about it."""

    def __init__(self, *parts):
        self.parts = parts

    def __iter__(self):
        return iter(self.parts)

    def total(self, statistic):
        return sum(weight * statistic(rows) for rows, weight in self.parts)


def fit(learner, *parts, world=None):
    return learner.fit(Given(*parts), world=world, seed=Seed(0))


def every_model():
    seed = Seed(1)
    normal, cloud, symbols, sequences = Normal(dimension=3, rows=12), Cloud(rows=15), Zipf(num_symbols=9), Sequences(num_symbols=5)
    for source, learner, sampler in (
        (normal, Gaussian(), Draws()),
        (cloud, Kernel(), Resample()),
        (symbols, Frequencies(), SymbolDraws()),
        (sequences, NGram(order=2), SymbolDraws(temperature=0.8)),
    ):
        world = source.draw(seed=seed)
        yield source, learner, sampler, world, fit(learner, (world.train, 1.0), world=world)


@pytest.mark.parametrize("case", range(4), ids=["gaussian", "kde", "categorical", "ngram"])
def test_a_model_comes_back_bit_for_bit_and_samples_are_deterministic(case, tmp_path):
    source, learner, sampler, world, model = list(every_model())[case]
    model.save(tmp_path)
    again = learner.load(tmp_path)
    first, second = (sampler.sample(m, 40, world=world, seed=Seed(5)) for m in (model, again))
    assert len(first) == 40
    assert first.names == world.train.names
    for name in first.names:
        assert first[name].dtype == world.train[name].dtype
        assert first[name].shape[1:] == world.train[name].shape[1:]
        np.testing.assert_array_equal(first[name], second[name])
    assert len(world.train) == source.num_rows
    assert len(sampler.sample(model, 0, world=world, seed=Seed(5))) == 0


@pytest.mark.parametrize("case", range(4), ids=["gaussian", "kde", "categorical", "ngram"])
def test_a_weight_of_two_is_the_row_twice(case):
    _, learner, _, world, _ = list(every_model())[case]
    half, rest = world.train.take(np.arange(6)), world.train.take(np.arange(6, len(world.train)))
    if case == 1:
        weighted, twice = fit(learner, (half, 2.0), (rest, 1.0)), fit(learner, (half, 1.0), (half, 1.0), (rest, 1.0))
        np.testing.assert_allclose(weighted.weights[0], 2 * weighted.weights[-1])
        metric = LogLoss()
        one, two = (metric.measure(m, world=world, samples=None, seed=Seed(0)) for m in (weighted, twice))
        assert one["log_loss"] == pytest.approx(two["log_loss"])
        return
    weighted, twice = (
        fit(learner, (half, 2.0), (rest, 1.0), world=world),
        fit(learner, (half, 1.0), (half, 1.0), (rest, 1.0), world=world),
    )
    for name, value in vars(weighted).items():
        np.testing.assert_allclose(value, getattr(twice, name))


def test_gaussian_moments_and_divergences_by_hand():
    x = np.random.default_rng(0).standard_normal((20, 3)) + 1
    model = fit(Gaussian(estimator="unbiased"), (Rows(x=x), 1.0))
    np.testing.assert_allclose(model.covariance, np.cov(x.T))
    found = Divergence().measure(model, world=None, samples=None, seed=Seed(0))
    rows = np.random.default_rng(1).standard_normal((200_000, 3))
    gap = multivariate_normal(np.zeros(3), np.eye(3)).logpdf(rows) - multivariate_normal(model.mean, model.covariance).logpdf(rows)
    assert found["kl_truth_model"] == pytest.approx(gap.mean(), abs=4 * gap.std() / np.sqrt(len(gap)))
    with pytest.raises(Stopped, match="singular"):
        Divergence().measure(GaussianModel(np.zeros(2), np.ones((2, 2))), world=None, samples=None, seed=Seed(0))


def test_ngrams_count():
    world = Sequences(num_symbols=2, rows=2, length=4).draw(seed=Seed(0))
    rows = Rows(tokens=np.array([[0, 1, 1, 0], [1, 1, 0, 0]], dtype=np.int32))
    model = fit(NGram(), (rows, 1.0), world=world)
    np.testing.assert_allclose(model.transitions, [[1 / 2, 1 / 2], [2 / 4, 2 / 4]])
    model = fit(NGram(order=2), (rows, 1.0), world=world)
    np.testing.assert_allclose(model.transitions[3], [1, 0])  # after 1, 1 comes 0
    np.testing.assert_allclose(model.transitions[2], [1, 0])  # after 1, 0 comes 0, once
    np.testing.assert_allclose(model.transitions[0], [1 / 2, 1 / 2])  # never seen: the overall frequencies


def test_a_long_sample_of_a_chain_returns_its_transitions():
    source = Sequences(num_symbols=4, rows=3000, length=40)
    world = source.draw(seed=Seed(0))
    for order in (1, 2):
        model = fit(NGram(order=order), (world.train, 1.0), world=world)
        again = SymbolDraws().sample(model, 3000, world=world, seed=Seed(1))
        np.testing.assert_allclose(fit(NGram(), (again, 1.0), world=world).transitions, world.transitions, atol=0.02)
        assert Chain().measure(model, world=world, samples=None, seed=Seed(0))["kl_rate"] < 2e-3


def test_temperature_sharpens_without_sampling_noise():
    model = SymbolModel(np.array([0.6, 0.4]))
    rows = SymbolDraws(temperature=0.5).sample(model, 100_000, world=None, seed=Seed(0))["symbol"]
    assert (rows == 0).mean() == pytest.approx(0.36 / 0.52, abs=0.01)


def test_symbols_lost_are_named():
    world = Zipf(num_symbols=4, beta=0.0, rows=5).draw(seed=Seed(0))
    found = Symbols().measure(SymbolModel(np.array([0.5, 0.5, 0, 0])), world=world, samples=None, seed=Seed(0))
    assert (found["survivors"], found["missing_mass"]) == (2, 0.5)
    assert found["heterozygosity"] == pytest.approx(0.5 / 0.75)
    assert found["kl_model_truth"] == pytest.approx(np.log(2))


@pytest.mark.parametrize("shape", SHAPES)
def test_clouds_and_their_log_loss(shape):
    source = Cloud(shape=shape, rows=200)
    world = source.draw(seed=Seed(2))
    losses = [
        LogLoss().measure(fit(Kernel(bandwidth=h), (world.train, 1.0)), world=world, samples=None, seed=Seed(0))["log_loss"]
        for h in (0.3, "scott", "silverman", 50.0)
    ]
    assert np.isfinite(losses).all()
    assert losses[-1] > losses[2]
    assert not np.isin(world.test["x"], world.train["x"]).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Normal(dimension=5, rows=5), "above source.dimension"),
        (lambda: Gaussian(estimator="map"), "'ml' or 'unbiased'"),
        (lambda: Draws(temperature=-1), "temperature must not be negative"),
        (lambda: Cloud(shape="ring"), "must be one of moons"),
        (lambda: Kernel(bandwidth=0), "must be a positive number"),
        (lambda: Kernel(bandwidth="scot"), "must be a positive number"),
        (lambda: Zipf(num_symbols=1), "num_symbols >= 2"),
        (lambda: Zipf(beta=-1), "beta must not be negative"),
        (lambda: Sequences(length=1), "length must be at least 2"),
        (lambda: NGram(order=0), "order must be at least 1"),
        (lambda: Frequencies(smoothing=-1), "smoothing must not be negative"),
        (lambda: SymbolDraws(temperature=0), "temperature must be positive"),
        (lambda: fit(NGram(order=9), world=Sequences().draw(seed=Seed(0))), "learner.order=1"),
    ],
)
def test_a_mistake_is_named(make, message):
    with pytest.raises(StudyError, match=message):
        make()


def test_the_squared_error_says_which_source_it_needs():
    world = Cloud(rows=9).draw(seed=Seed(0))
    with pytest.raises(StudyError, match=r"source\.shape=normal"):
        SquaredError().measure(fit(Kernel(), (world.train, 1.0)), world=world, samples=None, seed=Seed(0))


def test_they_are_in_the_catalogue():
    assert {"gaussian", "kde", "categorical"} <= set(catalogue.families())

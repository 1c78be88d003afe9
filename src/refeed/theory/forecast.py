"""Forecasts of a loss curve from its first generations: a squared-Bessel state space, averaged over growth shapes.

The loss of generation n is L_n = a + x_n + sigma noise, with x_n = |e_n|^2 the excess of a model whose D-dimensional error
walks, e_n = rho e_{n-1} + N(0, b g_n / D). What a policy fixes is the shape g_n (replace: 1; accumulate: 1/n^2; ...). Unknown are
a, b, the effective dimension D (run-to-run noise of relative size sqrt(2/D)), sigma, and rates of the shapes. Weak priors scaled
to the data, sequential Monte Carlo, a local-moment filter for the past and exact noncentral chi-square steps for the future. The
mean of R lineages is again such a curve, of dimension R D; their spread tells D. docs/theory/forecast.md shows how well the
intervals cover.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from refeed.theory.mean import accumulate_subsample
from refeed.theory.registry import TheoryError, require

PARTICLES, MOVES = 1200, 4  # of the sampler of a shape's parameters
LEVELS = (0.5, 0.8, 0.95)
POLICIES = {  # a policy's name: its own shapes, most likely first
    "replace": ("constant",),
    "accumulate": ("square",),
    "accumulate-subsample": ("subsample",),
    "reservoir": ("reservoir",),
    "replace-multiple": ("harmonic",),
    "window": ("constant",),
    "growing": ("square",),
    "fresh-real": ("mixing",),
    "fixed-real": ("mixing",),
    "weighted-fresh-real": ("mixing",),
}
SHAPES = ("constant", "square", "harmonic", "reservoir", "subsample", "mixing", "power", "exponential", "falling", "bending")
OWN, BENT = 0.8, 0.1  # prior of the shapes of a known policy, and of the bend that real networks add to any
SPREAD = {"constant": 1.09, "reservoir": 1.07, "falling": 0.8}  # of draws about their median, where not 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Forecast:
    """The curve ahead, at `generations`, and what kind of curve it is.

    `draws` has shape (draws, generations): observed losses as the model expects them, equally likely.
    """

    generations: np.ndarray
    draws: np.ndarray
    shapes: Mapping[str, float]  # posterior probability of each growth shape
    chances: Mapping[str, float] = field(default_factory=dict)  # of collapse, plateau, improvement

    def interval(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """The central interval that covers with about that probability, by generation."""
        require(0 < level < 1, f"level is a probability between 0 and 1, not {level}")
        low, high = np.quantile(self.draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return low, high

    @property
    def median(self) -> np.ndarray:
        return np.median(self.draws, axis=0)

    @property
    def decision(self) -> str:
        """The likeliest kind of curve, or "undecided" where none reaches .6."""
        name, chance = max(self.chances.items(), key=lambda item: item[1])
        return name if chance >= 0.6 else "undecided"


def forecast(
    losses: np.ndarray,
    *,
    to: int,
    policy: str | None = None,
    dimension: float | None = None,
    floor: float | None = None,
    seed: int = 0,
) -> Forecast:
    """The losses of generations k+1..to, from those of 1..k: shape (k,), or (lineages, k) for several seeds.

    `policy` gives its own shapes nine tenths of the prior. `dimension` (the effective number of parameters) and `floor` (the loss
    of a perfect model) sharpen the forecast where they are known. Needs three generations, and five to be worth much.
    """
    return forecasts(losses, to=to, policies=[policy], dimension=dimension, floor=floor, seed=seed)[0]


def forecasts(
    losses: np.ndarray,
    *,
    to: int,
    policies: Sequence[str | None],
    dimension: float | None = None,
    floor: float | None = None,
    seed: int = 0,
) -> list[Forecast]:
    """The forecast under each of several policies (None: not told); the shapes are fitted once."""
    setting, scale, shift = _prepare(losses, to=to, dimension=dimension, floor=floor)
    for policy in policies:
        if policy is not None and policy not in POLICIES:
            raise TheoryError(f"no growth shape is known for policy {policy!r}; known: {', '.join(POLICIES)}. Leave the policy out")
    rng = np.random.default_rng(seed)
    fits = {shape: _fit(rng, shape, setting) for shape in SHAPES}
    return [_average(rng, fits, setting, policy, scale, shift) for policy in policies]


def _prepare(losses: np.ndarray, *, to: int, dimension: float | None, floor: float | None) -> tuple[_Setting, float, float]:
    """The problem in units of the data: first loss at 0, range 1."""
    curves = np.atleast_2d(np.asarray(losses, dtype=float))
    lineages, k = curves.shape
    require(k >= 3, f"at least 3 generations are needed for a forecast, not {k}")
    require(bool(np.isfinite(curves).all()), "the losses hold NaN or infinite values")
    require(to > k, f"the last generation asked for must be beyond the {k} observed, not {to}")
    require(dimension is None or dimension > 0, f"dimension must be positive, not {dimension}")
    mean = curves.mean(axis=0)
    size = float(np.abs(mean).max())
    scale = max(float(mean.max() - mean.min()), 1e-9 * size, 1e-300)
    setting = _Setting(
        y=(mean - mean[0]) / scale,
        lineages=lineages,
        spread=float(curves[:, -1].var(ddof=1)) / scale**2 if lineages > 1 else None,
        dimension=dimension,
        floor=None if floor is None else (floor - float(mean[0])) / scale,
        to=to,
    )
    return setting, scale, float(mean[0])


def _average(
    rng: np.random.Generator,
    fits: dict[str, _Fit],
    setting: _Setting,
    policy: str | None,
    scale: float,
    shift: float,
) -> Forecast:
    own = POLICIES[policy] if policy else ()
    prior = _prior(own)
    logs = np.array([fits[shape].evidence + np.log(prior[shape]) for shape in SHAPES])
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    k = len(setting.y)
    pieces, growth = [], []
    counts = rng.multinomial(4000, weights)
    for count, shape in zip(counts, SHAPES, strict=True):
        if count:
            ahead, level = fits[shape].simulate(rng, int(count), setting)
            pieces.append(ahead)
            growth.append(level)
    draws, last = np.concatenate(pieces), np.concatenate(growth)  # last: the noiseless growth from k to the end
    before = float(setting.y[-1] - setting.y[0])
    falling = np.repeat(np.array(SHAPES) == "falling", counts)
    rising = last > 0.75 * max(before, 0.0)
    chances = {
        "collapse": float((rising & ~falling).mean()),
        "plateau": float((~rising & ~falling).mean()),
        "improvement": float(falling.mean()),
    }
    return Forecast(
        generations=np.arange(k + 1, setting.to + 1),
        draws=draws * scale + shift,
        shapes=dict(zip(SHAPES, weights.tolist(), strict=True)),
        chances=chances,
    )


def _prior(own: tuple[str, ...]) -> dict[str, float]:
    """Probabilities of the shapes: by how many policies have them, at least one; of a known policy, its own first."""
    named = [shape for shapes in POLICIES.values() for shape in shapes]
    counts = {shape: max(1, named.count(shape)) for shape in SHAPES}
    if not own:
        return {shape: count / sum(counts.values()) for shape, count in counts.items()}
    others = {shape: count for shape, count in counts.items() if shape not in (*own, "bending")}
    left = (1 - OWN - BENT) / sum(others.values())
    return {shape: OWN / len(own) if shape in own else BENT if shape == "bending" else left * counts[shape] for shape in SHAPES}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Setting:
    y: np.ndarray  # observed mean losses, first at 0, range about 1
    lineages: int
    spread: float | None  # variance over lineages at the last observed generation
    dimension: float | None
    floor: float | None
    to: int


def _steps(shape: str, last: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """g_n of generations 1..last, g_1 = 1; shape (last, 1) or (last, draws). Both rates lie in (0, 1).

    square and harmonic are exact for least squares with (d+1)/T = c; n^rate leaves room for the growth that classical laws of
    pools of fixed size miss where d/T is not small; mixing has another step size in generation 1, which is fitted on fewer rows.
    """
    n = np.arange(1.0, last + 1)[:, None]
    if shape in ("constant", "exponential"):
        return np.ones((last, 1))
    if shape == "mixing":
        steps = np.repeat(0.1 * 20 ** second[None, :], last, axis=0)
        steps[0] = 1.0
        return steps
    if shape in ("square", "harmonic"):
        c = 0.9 * first
        return (1 - c) / ((n - c) * (n if shape == "square" else 1.0))
    if shape == "reservoir":
        return (2 / n - n**-2) * n ** (0.3 * first - 0.15)
    if shape == "subsample":
        base = np.diff(accumulate_subsample(T=2000, M=2000, n=last) * 2000, prepend=0.0)[:, None]
        return np.asarray(base * n ** (0.5 * first))
    if shape == "bending":  # fast at first, then for ever at the rate w of the first step
        w = 0.01 ** (1 - first)
        return w + (1 - w) * n**-2
    power = 0.3 + 2.2 * first
    return n**power - (n - 1) ** power


# Parameters of a draw: log b, log D, log sigma, the standard normal positions of x_1 and of the first noise, two rates in (0, 1).
LOW, HIGH = np.log([0.02, 1.0]), np.log([50.0, 2000.0])  # of b and D, of equal density between
NOISE, NOISE_WIDTH = np.log(0.02), 1.0  # mean and standard deviation of log sigma: measurement noise is small beside the curve


def _log_prior(theta: np.ndarray) -> np.ndarray:
    inside = ((theta[:, :2] >= LOW) & (theta[:, :2] <= HIGH)).all(axis=1) & ((theta[:, 5:] > 0) & (theta[:, 5:] < 1)).all(axis=1)
    normal = ((theta[:, 2] - NOISE) / NOISE_WIDTH) ** 2 + theta[:, 3] ** 2 + theta[:, 4] ** 2
    return np.where(inside, -0.5 * normal, -np.inf)


def _inside(theta: np.ndarray) -> np.ndarray:
    """Draws that the prior rules out, moved to its edge: their likelihood is never used, but must be a number."""
    return np.column_stack([np.clip(theta[:, :2], LOW, HIGH), np.clip(theta[:, 2:5], -12, 8), np.clip(theta[:, 5:], 0, 1)])


def _draw_prior(rng: np.random.Generator, count: int) -> np.ndarray:
    normal = rng.standard_normal((count, 3)) * [NOISE_WIDTH, 1, 1] + [NOISE, 0, 0]
    return np.column_stack([rng.uniform(LOW, HIGH, (count, 2)), normal, rng.random((count, 2))])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Parts:
    """The meaning of parameter draws under a shape."""

    b: np.ndarray
    D: np.ndarray  # of the mean curve: lineages times that of one
    sigma: np.ndarray
    x1: np.ndarray
    a: np.ndarray
    shrink: np.ndarray  # rho^2
    g: np.ndarray
    tail: np.ndarray  # c/(1-c): variance that chance designs add to |step|^2, in units of its own


def _parts(shape: str, theta: np.ndarray, setting: _Setting, last: int) -> _Parts:
    b, D, sigma = np.exp(theta[:, 0]), np.exp(theta[:, 1]), np.exp(theta[:, 2])
    D = np.full_like(D, setting.dimension) if setting.dimension is not None else D
    D = D * setting.lineages
    c = 0.6 * theta[:, 6] if shape != "mixing" else np.full_like(D, 0.2)
    first = D * (1 - c)
    cube = 1 - 2 / (9 * first) + theta[:, 3] * np.sqrt(2 / (9 * first))  # Wilson-Hilferty: chi-square from a normal position
    x1 = b * np.maximum(cube, 1e-3) ** 3
    rate = theta[:, 5]
    shrink = {"mixing": rate, "exponential": 1 + rate}.get(shape, np.ones_like(rate))
    a = -x1 - sigma * theta[:, 4]
    return _Parts(b=b, D=D, sigma=sigma, x1=x1, a=a, shrink=shrink, g=_steps(shape, last, rate, theta[:, 6]), tail=c / (1 - c))


def _likelihood(shape: str, theta: np.ndarray, setting: _Setting) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-likelihood of the observed curve, and the filtered mean and variance of x at its end."""
    y, theta = setting.y, _inside(theta)
    if shape == "falling":
        return _likelihood_falling(theta, setting)
    p = _parts(shape, theta, setting, len(y))
    mean, variance, total = p.x1, np.zeros(len(theta)), np.zeros(len(theta))
    for n in range(1, len(y)):
        v = p.b * p.g[n]
        variance = p.shrink**2 * variance + (4 * p.shrink * np.maximum(mean, 0) * v + 2 * v**2 * (1 + p.tail)) / p.D
        mean = p.shrink * mean + v
        gap, width = y[n] - p.a - mean, variance + p.sigma**2
        total += -0.5 * (gap**2 / width + np.log(2 * np.pi * width))
        gain = variance / width
        mean, variance = mean + gain * gap, (1 - gain) * variance
    if setting.spread is not None:
        total += _spread(setting, np.maximum(y[-1] - p.a, 1e-6) ** 2 * 2 / p.D * setting.lineages + p.sigma**2 * setting.lineages)
    if setting.floor is not None:
        total += -0.5 * ((p.a - setting.floor) / 0.02) ** 2 - np.log(0.02 * np.sqrt(2 * np.pi))
    return total, mean, variance


def _spread(setting: _Setting, expected: np.ndarray) -> np.ndarray:
    """Log-density of the variance over lineages: a scaled chi-square."""
    freedom = setting.lineages - 1
    ratio = (setting.spread or 0.0) * freedom / expected
    return freedom / 2 * np.log(np.maximum(ratio, 1e-12)) - ratio / 2


def _falling(theta: np.ndarray, n: np.ndarray) -> np.ndarray:
    """c (n^-rate - 1): a loss that improves; rates of 0.1 to 2."""
    rate = 0.1 * 20 ** theta[:, 5]
    return np.exp(theta[:, 0]) * (n[:, None] ** -rate - 1)


def _likelihood_falling(theta: np.ndarray, setting: _Setting) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    sigma = np.exp(theta[:, 2])
    expected = _falling(theta, np.arange(1.0, len(setting.y) + 1)) - sigma * theta[:, 4]
    gap = setting.y[1:, None] - expected[1:]
    total = -0.5 * ((gap / sigma) ** 2 + np.log(2 * np.pi * sigma**2)).sum(axis=0)
    if setting.spread is not None:
        total += _spread(setting, sigma**2 * setting.lineages)
    return total, np.zeros(len(theta)), np.zeros(len(theta))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Fit:
    shape: str
    theta: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    evidence: float  # log marginal likelihood

    def simulate(self, rng: np.random.Generator, count: int, setting: _Setting) -> tuple[np.ndarray, np.ndarray]:
        """Losses ahead with noise, and the growth from the last observed generation to the end without."""
        chosen = rng.integers(len(self.theta), size=count)
        theta, k = self.theta[chosen], len(setting.y)
        noise = np.exp(theta[:, 2:3]) * rng.standard_normal((count, setting.to - k))
        if self.shape == "falling":
            path = _falling(theta, np.arange(float(k), setting.to + 1)).T - (np.exp(theta[:, 2]) * theta[:, 4])[:, None]
            return self._spread(path[:, 1:] + noise), path[:, -1] - path[:, 0]
        p = _parts(self.shape, theta, setting, setting.to)
        mean, variance = np.maximum(self.mean[chosen], 1e-9), np.maximum(self.variance[chosen], 1e-18)
        form = mean**2 / variance
        start = x = np.where(form < 1e8, rng.standard_gamma(np.minimum(form, 1e8)) * variance / mean, mean)
        path = np.empty((count, setting.to - k))
        for column, n in enumerate(range(k, setting.to)):
            v = p.b * p.g[n]
            v = v * _tail(rng, p)
            x = v / p.D * rng.noncentral_chisquare(p.D, np.minimum(p.D * p.shrink * x / v, 1e12))
            path[:, column] = x
        return self._spread(p.a[:, None] + path + noise), path[:, -1] - start

    def _spread(self, draws: np.ndarray) -> np.ndarray:
        """Recalibrated: with these factors intervals cover on designs of many sizes, the policy told (docs/theory/forecast.md)."""
        middle = np.median(draws, axis=0)
        return np.asarray(middle + SPREAD.get(self.shape, 1.0) * (draws - middle))


def _tail(rng: np.random.Generator, p: _Parts) -> np.ndarray:
    """Inverse gamma of mean 1 and variance 2 tail / D: |step|^2 is chi-square over a chi-square of the rows to spare."""
    form = np.minimum(2 + p.D / (2 * np.maximum(p.tail, 1e-9)), 1e9)
    return (form - 1) / rng.standard_gamma(form)


def _fit(rng: np.random.Generator, shape: str, setting: _Setting) -> _Fit:
    """Sequential Monte Carlo from the prior to the posterior: tempered so that half of the particles count at each step, resampled,
    and moved by random-walk Metropolis; the product of the mean weights is the evidence."""
    theta = _draw_prior(rng, PARTICLES)
    found, prior = list(_likelihood(shape, theta, setting)), _log_prior(theta)
    heat, evidence, reach = 0.0, 0.0, 1.0
    while heat < 1:
        step = _next_step(found[0], 1 - heat)
        heat += step
        weights = np.exp(step * (found[0] - found[0].max()))
        evidence += float(step * found[0].max() + np.log(weights.mean()))
        kept = _resample(rng, weights / weights.sum())
        theta, found, prior = theta[kept], [column[kept] for column in found], prior[kept]
        root = np.linalg.cholesky(np.cov(theta.T) * (2.38**2 / theta.shape[1]) + 1e-10 * np.eye(theta.shape[1]))
        for _ in range(MOVES):
            tried = theta + reach * (rng.standard_normal(theta.shape) @ root.T)
            new, allowed = _likelihood(shape, tried, setting), _log_prior(tried)
            odds = allowed - prior + heat * (new[0] - found[0])
            accepted = np.log(rng.random(len(theta))) < odds
            theta, prior = np.where(accepted[:, None], tried, theta), np.where(accepted, allowed, prior)
            found = [np.where(accepted, fresh, old) for fresh, old in zip(new, found, strict=True)]
            reach *= np.exp(accepted.mean() - 0.25)
    return _Fit(shape=shape, theta=theta, mean=found[1], variance=found[2], evidence=evidence)


def _next_step(logs: np.ndarray, most: float) -> float:
    """The largest power of the likelihood, up to `most`, at which the effective number of particles is half of them."""

    def effective(power: float) -> float:
        weights = np.exp(power * (logs - logs.max()))
        return float(weights.sum() ** 2 / (weights**2).sum())

    low, high = 0.0, most
    if effective(most) >= len(logs) / 2:
        return most
    for _ in range(25):
        middle = (low + high) / 2
        low, high = (middle, high) if effective(middle) >= len(logs) / 2 else (low, middle)
    return max(low, 1e-6)


def _resample(rng: np.random.Generator, weights: np.ndarray) -> np.ndarray:
    """Systematic resampling: positions of the particles that go on, each as often as its weight says, up to rounding."""
    points = (np.arange(len(weights)) + rng.random()) / len(weights)
    return np.minimum(np.searchsorted(np.cumsum(weights), points), len(weights) - 1)

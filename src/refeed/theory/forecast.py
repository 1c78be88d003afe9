"""Forecasts of a loss curve from its first generations: a squared-Bessel state space, averaged over growth shapes.

The loss of generation n is L_n = a + x_n + sigma noise, with x_n = |e_n|^2 the excess of a model whose D-dimensional error
walks, e_n = rho e_{n-1} + N(0, b g_n / D). What a policy fixes is the shape g_n (replace: 1; accumulate: 1/n^2; ...). Unknown are
a, b, the effective dimension D (run-to-run noise of relative size sqrt(2/D)), sigma, and for some shapes rho or a rate. Weak
priors scaled to the data, adaptive importance sampling, a local-moment filter for the past and exact noncentral chi-square steps
for the future. The mean of R lineages is again such a curve, of dimension R D; their spread tells D. docs/theory/forecast.md
shows how well the intervals cover.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from refeed.theory.mean import accumulate_subsample
from refeed.theory.registry import TheoryError, require

DRAWS = 3000  # of the parameters of a shape, in each of three rounds
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
SHAPES = (
    *("constant", "square", "harmonic", "reservoir", "subsample", "mixing"),
    *("power 0.5", "power 1.5", "power 2", "exponential", "falling"),
)
OWN = 0.9  # prior of the shapes of a known policy


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
        wide = widened(level)
        low, high = np.quantile(self.draws, [(1 - wide) / 2, (1 + wide) / 2], axis=0)
        return low, high

    @property
    def median(self) -> np.ndarray:
        return np.median(self.draws, axis=0)

    @property
    def decision(self) -> str:
        """The likeliest kind of curve, or "undecided" where none reaches .6."""
        name, chance = max(self.chances.items(), key=lambda item: item[1])
        return name if chance >= 0.6 else "undecided"


WIDENED = ((0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 1.0), (0.0, 0.533, 0.81, 0.912, 0.957, 0.982, 1.0))


def widened(level: float) -> float:
    """The posterior probability of the interval that covers `level` of futures, measured on designs of many sizes."""
    require(0 < level < 1, f"level is a probability between 0 and 1, not {level}")
    return float(np.interp(level, *WIDENED))


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
    setting, scale, shift = _prepare(losses, to=to, dimension=dimension, floor=floor)
    if policy is not None and policy not in POLICIES:
        raise TheoryError(f"no growth shape is known for policy {policy!r}; known: {', '.join(POLICIES)}. Leave the policy out")
    rng = np.random.default_rng(seed)
    fits = {shape: _fit(rng, shape, setting) for shape in SHAPES}
    return _average(rng, fits, setting, policy, scale, shift)


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
    others = [shape for shape in SHAPES if shape not in own]
    prior = {shape: (OWN / len(own) if shape in own else (1 - OWN if own else 1.0) / len(others)) for shape in SHAPES}
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


@dataclass(frozen=True, kw_only=True, eq=False)
class _Setting:
    y: np.ndarray  # observed mean losses, first at 0, range about 1
    lineages: int
    spread: float | None  # variance over lineages at the last observed generation
    dimension: float | None
    floor: float | None
    to: int


def _steps(shape: str, last: int, rate: np.ndarray) -> np.ndarray:
    """g_n of generations 1..last, g_1 = 1; shape (last, 1) or (last, draws)."""
    n = np.arange(1.0, last + 1)[:, None]
    if shape in ("constant", "mixing", "exponential"):
        return np.ones((last, 1))
    if shape == "square":
        return n**-2
    if shape == "harmonic":
        return 1 / n
    if shape == "reservoir":
        return 2 / n - n**-2
    if shape == "subsample":
        return np.diff(accumulate_subsample(T=2000, M=2000, n=last) * 2000, prepend=0.0)[:, None]
    power = float(shape.partition(" ")[2])
    return n**power - (n - 1) ** power


# Parameters of a draw: log b, log D, log sigma, the standard normal position of x_1, that of the first noise, and a rate in (0, 1).
LOW = np.log([0.02, 1.0, 0.002])
HIGH = np.log([50.0, 2000.0, 0.3])


def _log_prior(theta: np.ndarray) -> np.ndarray:
    inside = ((theta[:, :3] >= LOW) & (theta[:, :3] <= HIGH)).all(axis=1) & (theta[:, 5] > 0) & (theta[:, 5] < 1)
    normal = -0.5 * (theta[:, 3] ** 2 + theta[:, 4] ** 2) - np.log(2 * np.pi)
    return np.where(inside, normal - np.log(HIGH - LOW).sum(), -np.inf)


def _inside(theta: np.ndarray) -> np.ndarray:
    """Draws that the prior rules out, moved to its edge: their likelihood is never used, but must be a number."""
    return np.column_stack([np.clip(theta[:, :3], LOW, HIGH), np.clip(theta[:, 3:5], -8, 8), np.clip(theta[:, 5], 0, 1)])


def _draw_prior(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.column_stack([rng.uniform(LOW, HIGH, (count, 3)), rng.standard_normal((count, 2)), rng.random(count)])


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


def _parts(shape: str, theta: np.ndarray, setting: _Setting) -> _Parts:
    b, D, sigma = np.exp(theta[:, 0]), np.exp(theta[:, 1]), np.exp(theta[:, 2])
    D = np.full_like(D, setting.dimension) if setting.dimension is not None else D
    D = D * setting.lineages
    cube = 1 - 2 / (9 * D) + theta[:, 3] * np.sqrt(2 / (9 * D))  # Wilson-Hilferty: chi-square from a normal position
    x1 = b * np.maximum(cube, 1e-3) ** 3
    rate = theta[:, 5]
    shrink = {"mixing": rate, "exponential": 1 + rate}.get(shape, np.ones_like(rate))
    a = -x1 - sigma * theta[:, 4]
    return _Parts(b=b, D=D, sigma=sigma, x1=x1, a=a, shrink=shrink, g=_steps(shape, setting.to, rate))


def _likelihood(shape: str, theta: np.ndarray, setting: _Setting) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-likelihood of the observed curve, and the filtered mean and variance of x at its end."""
    y, theta = setting.y, _inside(theta)
    if shape == "falling":
        return _likelihood_falling(theta, setting)
    p = _parts(shape, theta, setting)
    mean, variance, total = p.x1, np.zeros(len(theta)), np.zeros(len(theta))
    for n in range(1, len(y)):
        v = p.b * p.g[n]
        variance = p.shrink**2 * variance + (4 * p.shrink * np.maximum(mean, 0) * v + 2 * v**2) / p.D
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
    weights: np.ndarray
    evidence: float  # log marginal likelihood

    def simulate(self, rng: np.random.Generator, count: int, setting: _Setting) -> tuple[np.ndarray, np.ndarray]:
        """Losses ahead with noise, and the growth from the last observed generation to the end without."""
        chosen = rng.choice(len(self.weights), size=count, p=self.weights)
        theta, k = self.theta[chosen], len(setting.y)
        noise = np.exp(theta[:, 2:3]) * rng.standard_normal((count, setting.to - k))
        if self.shape == "falling":
            path = _falling(theta, np.arange(float(k), setting.to + 1)).T - (np.exp(theta[:, 2]) * theta[:, 4])[:, None]
            return path[:, 1:] + noise, path[:, -1] - path[:, 0]
        p = _parts(self.shape, theta, setting)
        mean, variance = np.maximum(self.mean[chosen], 1e-9), np.maximum(self.variance[chosen], 1e-18)
        form = mean**2 / variance
        start = x = np.where(form < 1e8, rng.standard_gamma(np.minimum(form, 1e8)) * variance / mean, mean)
        path = np.empty((count, setting.to - k))
        for column, n in enumerate(range(k, setting.to)):
            v = p.b * p.g[n]
            x = v / p.D * rng.noncentral_chisquare(p.D, np.minimum(p.D * p.shrink * x / v, 1e12))
            path[:, column] = x
        return p.a[:, None] + path + noise, path[:, -1] - start


def _fit(rng: np.random.Generator, shape: str, setting: _Setting) -> _Fit:
    """Adaptive importance sampling: a round from the prior, two from a t law about what it found, all mixed."""
    theta = _draw_prior(rng, 2 * DRAWS)
    rounds, proposals = [theta], []
    total, mean, variance = _likelihood(shape, theta, setting)
    found = [(total, mean, variance)]
    weights = _normalised(total)
    for _ in range(2):
        center, spread = _moments(np.concatenate(rounds), weights)
        proposals.append((center, spread))
        theta = _draw_t(rng, center, spread, DRAWS)
        found.append(_likelihood(shape, theta, setting))
        rounds.append(theta)
        everything = np.concatenate(rounds)
        prior = _log_prior(everything)
        mixture = np.stack(
            [prior + np.log(2 / (2 + len(proposals)))]
            + [_log_t(everything, *proposal) + np.log(1 / (2 + len(proposals))) for proposal in proposals]
        )
        top = mixture.max(axis=0)
        proposal_density = top + np.log(np.exp(mixture - top).sum(axis=0))
        total = np.concatenate([entry[0] for entry in found])
        logs = np.where(np.isfinite(prior), total + prior - proposal_density, -np.inf)
        weights = _normalised(logs)
    evidence = float(logs.max() + np.log(np.exp(logs - logs.max()).mean()))
    mean, variance = (np.concatenate([entry[i] for entry in found]) for i in (1, 2))
    return _Fit(shape=shape, theta=everything, mean=mean, variance=variance, weights=weights, evidence=evidence)


def _normalised(logs: np.ndarray) -> np.ndarray:
    weights = np.exp(logs - logs.max())
    return weights / weights.sum()


def _moments(theta: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    flat = 0.98 * weights + 0.02 / len(weights) if 1 / (weights**2).sum() < 10 else weights
    center = flat @ theta
    gap = theta - center
    return center, (gap * flat[:, None]).T @ gap * 1.5 + 1e-6 * np.eye(theta.shape[1])


FREEDOM = 5.0


def _draw_t(rng: np.random.Generator, center: np.ndarray, spread: np.ndarray, count: int) -> np.ndarray:
    root = np.linalg.cholesky(spread)
    scale = np.sqrt(FREEDOM / rng.chisquare(FREEDOM, (count, 1)))
    return center + scale * (rng.standard_normal((count, len(center))) @ root.T)


def _log_t(theta: np.ndarray, center: np.ndarray, spread: np.ndarray) -> np.ndarray:
    from scipy.special import gammaln

    d, root = len(center), np.linalg.cholesky(spread)
    square = (np.linalg.solve(root, (theta - center).T) ** 2).sum(axis=0)
    constant = gammaln((FREEDOM + d) / 2) - gammaln(FREEDOM / 2) - d / 2 * np.log(FREEDOM * np.pi) - np.log(np.diag(root)).sum()
    return constant - (FREEDOM + d) / 2 * np.log1p(square / FREEDOM)

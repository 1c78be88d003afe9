"""The laws against simulations that materialise every row and know no formula: z = 4 on each of the entries compared.

About 150 comparisons at a two-sided rate of 6e-5 each: a false alarm in less than 1 % of fresh seeds; seeds are fixed, so a pass
stays a pass. Asymptotic laws are compared at a stated tolerance instead.
"""

import numpy as np
import pytest
from loops import accumulate, fit, labelled, replace, truth

from refeed.theory import evaluate


def close(values, expected, *, z=4.0):
    """Means over the first axis agree with `expected` within z standard errors."""
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    scores = (values.mean(axis=0) - expected) / error
    assert np.abs(scores).max() < z, scores


@pytest.mark.parametrize(
    ("d", "T", "s"),
    [(1, [9, 4, 12, 3], [1, 1, 1, 1]), (3, [16, 5, 1, 20], [1, 2, 0.5, 1]), (6, [24, 24, 8, 40], [2, 1, 1, 3])],
)
def test_accumulate_mean_and_variance(d, T, s):
    errors = accumulate(np.random.default_rng(1), 30000, d, T, s)
    mean = evaluate("regression.accumulate", d=d, T=T, s=s)
    variance = evaluate("regression.accumulate_variance", d=d, T=T, s=s)
    close(errors, mean)
    close((errors - mean) ** 2, variance)


@pytest.mark.parametrize(("policy", "loop"), [("accumulate", accumulate), ("replace", replace)])
@pytest.mark.parametrize(("d", "T", "distance"), [(1, 30, 0.035), (4, 48, 0.025), (3, 16, 0.07)])
def test_quantiles_by_the_gamma_match(policy, loop, d, T, distance):
    errors = loop(np.random.default_rng(20), 20000, d, [T] * 4, [1] * 4)
    for q in (0.1, 0.5, 0.9):
        below = (errors < evaluate(f"regression.{policy}_quantile", d=d, T=T, n=4, q=q)).mean(0)
        assert np.abs(below - q).max() < distance


def test_replace_mean_and_variance():
    d, T, s = 3, [14, 20, 12, 30], [1, 2, 0.5, 1]
    errors = replace(np.random.default_rng(2), 40000, d, T, s)
    mean = evaluate("regression.replace", d=d, T=T, s=s)
    close(errors, mean)
    close((errors - mean) ** 2, evaluate("regression.replace_variance", d=d, T=T, s=s))


@pytest.mark.parametrize(("d", "real", "synthetic", "first"), [(2, 5, 3, 9), (5, 4, 9, 12), (1, 0, 6, 8)])
@pytest.mark.parametrize("ridge", [0.0, 2.5])
def test_fresh_loop(d, real, synthetic, first, ridge):
    rng, runs, signal, n = np.random.default_rng([3, d]), 20000, 1.7, 5
    star = truth(runs, d, signal)
    w, errors = fit(*labelled(rng, runs, first, star, 1.0), ridge=ridge), []
    for _ in range(n):
        errors.append(((w - star) ** 2).sum(1))
        old, new = labelled(rng, runs, real, star, 1.0), labelled(rng, runs, synthetic, w, 1.0)
        w = fit(np.concatenate([old[0], new[0]], 1), np.concatenate([old[1], new[1]], 1), ridge=ridge)
    sizes = {"d": d, "n_real": real, "n_synthetic": synthetic, "T1": first, "n": n}
    law = (
        evaluate("regression.ridge_fresh", **sizes, ridge=ridge, signal=signal) if ridge else evaluate("regression.fresh", **sizes)
    )
    close(np.stack(errors, 1), law)


@pytest.mark.parametrize(("d", "real", "synthetic", "first"), [(1, 4, 6, 9), (2, 9, 5, 12), (4, 8, 12, 16)])
def test_fresh_loop_variance(d, real, synthetic, first):
    rng, runs, n, errors = np.random.default_rng([40, d]), 40000, 3, []
    star = truth(runs, d)
    w = fit(*labelled(rng, runs, first, star, 1.0))
    for _ in range(n):
        errors.append((w**2).sum(1))
        old, new = labelled(rng, runs, real, star, 1.0), labelled(rng, runs, synthetic, w, 1.0)
        w = fit(np.concatenate([old[0], new[0]], 1), np.concatenate([old[1], new[1]], 1))
    sizes = {"d": d, "n_real": real, "n_synthetic": synthetic, "T1": first, "n": n}
    close((np.stack(errors, 1) - evaluate("regression.fresh", **sizes)) ** 2, evaluate("regression.fresh_variance", **sizes))


@pytest.mark.parametrize(("d", "T"), [(1, [4, 3, 6]), (3, [5, 2, 9]), (4, [12, 8, 16])])
def test_ridge_replace_variance(d, T):
    rng, runs, signal, errors = np.random.default_rng([41, d]), 30000, 1.5, []
    star = w = truth(runs, d, signal)
    for rows, noise in zip(T, [1, 2, 0.5], strict=True):
        w = fit(*labelled(rng, runs, rows, w, noise), ridge=2.0)
        errors.append(((w - star) ** 2).sum(1))
    sizes = {"T": T, "d": d, "ridge": 2.0, "signal": signal, "s": [1, 2, 0.5]}
    close(
        (np.stack(errors, 1) - evaluate("regression.ridge_replace", **sizes)) ** 2,
        evaluate("regression.ridge_replace_variance", **sizes),
    )


def test_variances_agree_where_laws_meet():
    """No real rows is replace, no synthetic ones independent fits; a vanishing penalty is least squares."""
    alone = evaluate("regression.fresh_variance", d=5, n_real=0, n_synthetic=20, n=4)
    np.testing.assert_allclose(alone, evaluate("regression.replace_variance", d=5, T=20, n=4))
    fits = evaluate("regression.fresh_variance", d=5, n_real=20, n_synthetic=0, n=4)
    np.testing.assert_allclose(fits, evaluate("regression.replace_variance", d=5, T=20, n=[1, 1, 1, 1]))
    ridge = evaluate("regression.ridge_replace_variance", d=5, T=20, ridge=1e-7, n=4)
    np.testing.assert_allclose(ridge, evaluate("regression.replace_variance", d=5, T=20, n=4), rtol=1e-5)


def test_a_mean_that_settles_while_its_variance_explodes():
    """d = 29, 20 real and 20 synthetic rows: q = .963, but E err^2 grows by 1.123 a generation."""
    sizes = {"d": 29, "n_real": 20, "n_synthetic": 20}
    assert evaluate("regression.fresh_factor", **sizes) == pytest.approx(0.96276, abs=1e-5)
    late = evaluate("regression.fresh_variance", **sizes, n=[400, 401])
    assert late[1] / late[0] == pytest.approx(1.12339, abs=1e-4)


def test_fresh_loop_with_other_noise_on_synthetic_rows():
    rng, runs = np.random.default_rng(4), 30000
    star = truth(runs, 3)
    w = fit(*labelled(rng, runs, 9, star, 1.0))
    old, new = labelled(rng, runs, 5, star, 1.0), labelled(rng, runs, 4, w, 2.0)
    w = fit(np.concatenate([old[0], new[0]], 1), np.concatenate([old[1], new[1]], 1))
    law = evaluate("regression.fresh", d=3, n_real=5, n_synthetic=4, T1=9, n=[2], s=1, s_synthetic=2)
    close((w**2).sum(1)[:, None], law)


def test_history_mixture():
    rng, runs, d, M, n = np.random.default_rng(5), 20000, 3, 9, 5
    models = [np.zeros((runs, d))]
    for _ in range(n):
        teachers = np.stack(models)[rng.integers(len(models), size=(runs, M)), np.arange(runs)[:, None]]
        x = rng.standard_normal((runs, M, d))
        models.append(fit(x, (x * teachers).sum(2) + 1.5 * rng.standard_normal((runs, M))))
    close(np.stack([(w**2).sum(1) for w in models[1:]], 1), evaluate("regression.history_mixture", d=d, M=M, n=n, s=1.5))


@pytest.mark.parametrize("T", [[3, 3, 12, 4], [4, 2, 3, 20]])
def test_minimum_norm(T):
    rng, runs, d, signal = np.random.default_rng(6), 8000, 8, 2.0
    star = truth(runs, d, signal)
    for policy in ("replace", "accumulate"):
        w, xs, ys, errors = star, [], [], []
        for rows in T:
            x, y = labelled(rng, runs, rows, w, 1.0)
            xs, ys = ([*xs, x], [*ys, y]) if policy == "accumulate" else ([x], [y])
            w = (np.linalg.pinv(np.concatenate(xs, 1)) @ np.concatenate(ys, 1)[..., None])[..., 0]
            errors.append(((w - star) ** 2).sum(1))
        law = evaluate(f"regression.{policy}_min_norm", d=d, T=T, signal=signal)
        keep = np.isfinite(law)
        close(np.stack(errors, 1)[:, keep], law[keep])


@pytest.mark.parametrize("T", [[6, 8, 3, 10], [2, 3, 4, 1]])
def test_ridge_accumulate(T):
    errors = accumulate(np.random.default_rng(7), 20000, 3, T, [1, 2, 1, 1], ridge=1.5, signal=2.0)
    close(errors, evaluate("regression.ridge_accumulate", d=3, T=T, s=[1, 2, 1, 1], ridge=1.5, signal=2.0))


def test_ridge_replace_with_fewer_rows_than_features():
    rng, runs, d, T, signal = np.random.default_rng(8), 20000, 4, [3, 6, 2], 2.0
    star = w = truth(runs, d, signal)
    errors = []
    for rows in T:
        w = fit(*labelled(rng, runs, rows, w, 1.0), ridge=0.8)
        errors.append(((w - star) ** 2).sum(1))
    close(np.stack(errors, 1), evaluate("regression.ridge_replace", d=d, T=T, ridge=0.8, signal=signal))


@pytest.mark.parametrize("estimator", ["ml", "unbiased"])
def test_replace_with_estimated_noise(estimator):
    rng, runs, d, T = np.random.default_rng(9), 20000, 3, [9, 12, 8, 10]
    w, s, errors = np.zeros((runs, d)), np.ones((runs, 1)), []
    for rows in T:
        x, y = labelled(rng, runs, rows, w, s)
        w = fit(x, y)
        residual = ((y - np.einsum("rnd,rd->rn", x, w)) ** 2).sum(1)
        s = np.sqrt(residual / (rows if estimator == "ml" else rows - d))[:, None]
        errors.append((w**2).sum(1))
    close(np.stack(errors, 1), evaluate("regression.replace_estimated_noise", d=d, T=T, estimator=estimator))


def test_asymptotic_laws_at_moderate_size():
    """Within 5 % at d = 24, statistical error below 1 %: fixed real rows, weighted fresh loop, ridge with a spectrum."""
    rng, runs, d, n = np.random.default_rng(10), 500, 24, 4
    zero = truth(runs, d)
    real = labelled(rng, runs, 60, zero, 1.0)
    w, errors = fit(*real), []
    for _ in range(n):
        errors.append((w**2).sum(1).mean())
        new = labelled(rng, runs, 60, w, 1.0)
        w = fit(np.concatenate([real[0], new[0]], 1), np.concatenate([real[1], new[1]], 1))
    np.testing.assert_allclose(errors, evaluate("regression.fixed_real_asymptotic", d=d, n_real=60, n_synthetic=60, n=n), rtol=0.05)

    w, errors = fit(*labelled(rng, runs, 90, zero, 1.0)), []
    weight = np.r_[np.full(40, 0.7 / 40), np.full(50, 0.3 / 50)]
    for _ in range(n):
        errors.append((w**2).sum(1).mean())
        old, new = labelled(rng, runs, 40, zero, 1.0), labelled(rng, runs, 50, w, 1.0)
        w = fit(np.concatenate([old[0], new[0]], 1), np.concatenate([old[1], new[1]], 1), weight=weight)
    law = evaluate("regression.fresh_weighted_asymptotic", d=d, n_real=40, n_synthetic=50, w=0.7, n=n)
    np.testing.assert_allclose(errors, law, rtol=0.05)

    sigma = 3 / np.arange(1.0, d + 1)
    star = w = np.tile(np.arange(1.0, d + 1) ** -0.5, (runs, 1))
    errors = []
    for _ in range(n):
        x = rng.standard_normal((runs, 40, d)) * np.sqrt(sigma)
        y = np.einsum("rnd,rd->rn", x, w) + rng.standard_normal((runs, 40))
        w = fit(x, y, ridge=5.0)
        errors.append((((w - star) ** 2) @ sigma).mean())
    law = evaluate("regression.ridge_replace_asymptotic", d=d, T=40, ridge=5, Sigma_diag=sigma, w="k^(-1/2)", n=n)
    np.testing.assert_allclose(errors, law, rtol=0.05)


def pool_loop(rng, runs, T, n, choose, *, gaussian, temperature=1.0):
    """Means and ML variances of a loop of 1-d fits; `choose(pool, fresh)` gives the next pool and training rows."""
    pool = None
    mean, variance = np.zeros((runs, 1)), np.ones((runs, 1))
    means, variances = [], []
    for g in range(n):
        spread = np.sqrt(variance * (temperature if g else 1.0)) if gaussian else 1.0
        fresh = mean + spread * rng.standard_normal((runs, T))
        pool, train = choose(rng, pool, fresh)
        mean, variance = train.mean(1, keepdims=True), train.var(1, keepdims=True)
        means.append(mean[:, 0] ** 2)
        variances.append(variance[:, 0])
    return np.stack(means, 1), np.stack(variances, 1)


def subsample(M):
    def choose(rng, pool, fresh):
        pool = fresh if pool is None else np.concatenate([pool, fresh], 1)
        chosen = np.argsort(rng.random(pool.shape), axis=1)[:, :M]
        return pool, np.take_along_axis(pool, chosen, 1)

    return choose


def reservoir(M, T):
    seen = [0]

    def choose(rng, pool, fresh):
        for row in range(T):  # the textbook algorithm R, row by row
            seen[0] += 1
            if pool is None or pool.shape[1] < M:
                pool = fresh[:, :1] if pool is None else np.concatenate([pool, fresh[:, row : row + 1]], 1)
                continue
            place = rng.integers(seen[0], size=len(fresh))
            hit = np.flatnonzero(place < M)
            pool[hit, place[hit]] = fresh[hit, row]
        return pool, pool

    return choose


def test_pools_of_means_and_gaussians():
    rng, runs, T, M, n = np.random.default_rng(21), 30000, 5, 4, 5
    means, _ = pool_loop(rng, runs, T, n, subsample(M), gaussian=False)
    close(means, evaluate("mean.accumulate_subsample", T=T, M=M, n=n))
    means, _ = pool_loop(rng, runs, T, n, reservoir(M, T), gaussian=False)
    close(means, evaluate("mean.reservoir", T=T, M=M, n=n))
    for tau in (1.0, 0.6):
        means, variances = pool_loop(rng, runs, T, n, subsample(M), gaussian=True, temperature=tau)
        close(means, evaluate("gaussian.accumulate_subsample_mean_error", T=T, M=M, n=n, temperature=tau))
        close(variances, evaluate("gaussian.accumulate_subsample_variance", T=T, M=M, n=n, temperature=tau))
        means, variances = pool_loop(rng, runs, T, n, reservoir(M, T), gaussian=True, temperature=tau)
        close(means, evaluate("gaussian.reservoir_mean_error", T=T, M=M, n=n, temperature=tau))
        close(variances, evaluate("gaussian.reservoir_variance", T=T, M=M, n=n, temperature=tau))
        means, variances = pool_loop(rng, runs, T, n, subsample(10**6), gaussian=True, temperature=tau)
        close(means, evaluate("gaussian.accumulate_mean_error", T=T, n=n, temperature=tau))
        close(variances, evaluate("gaussian.accumulate_variance", T=T, n=n, temperature=tau))


@pytest.mark.parametrize("policy", ["fresh", "fixed_real"])
def test_gaussians_beside_real_rows(policy):
    rng, runs, real, synthetic, n = np.random.default_rng(12), 40000, 3, 4, 4
    first = rng.standard_normal((runs, real if policy == "fixed_real" else real + synthetic))
    train, variances = first, []
    for _ in range(n):
        variances.append(train.var(1))
        fresh = train.mean(1, keepdims=True) + train.std(1, keepdims=True) * rng.standard_normal((runs, synthetic))
        kept = first if policy == "fixed_real" else rng.standard_normal((runs, real))
        train = np.concatenate([kept, fresh], 1)
    close(np.stack(variances, 1), evaluate(f"gaussian.{policy}_variance", n_real=real, n_synthetic=synthetic, n=n))


def test_gaussian_replace_in_three_dimensions():
    rng, runs, d, T = np.random.default_rng(13), 20000, 3, [12, 16, 14]
    mean, root = np.zeros((runs, 1, d)), np.tile(np.eye(d), (runs, 1, 1))
    logdet, forward, backward = [], [], []
    for rows in T:
        x = mean + rng.standard_normal((runs, rows, d)) @ root.transpose(0, 2, 1)
        mean = x.mean(1, keepdims=True)
        S = (x - mean).transpose(0, 2, 1) @ (x - mean) / (rows - 1)
        root, inverse = np.linalg.cholesky(S), np.linalg.inv(S)
        m = mean[:, 0]
        logdet.append(np.linalg.slogdet(S)[1])
        forward.append((np.trace(S, axis1=1, axis2=2) - d + (m**2).sum(1) - logdet[-1]) / 2)
        backward.append((np.trace(inverse, axis1=1, axis2=2) - d + np.einsum("ri,rij,rj->r", m, inverse, m) + logdet[-1]) / 2)
    close(np.stack(logdet, 1), evaluate("gaussian.replace_logdet", d=d, T=T))
    close(np.stack(forward, 1), evaluate("gaussian.replace_kl_model_truth", d=d, T=T))
    close(np.stack(backward, 1), evaluate("gaussian.replace_kl_truth_model", d=d, T=T))


@pytest.mark.parametrize(("v2", "draw"), [(1.0, "exponential"), (-0.25, "binomial"), (0.0, "poisson")])
def test_exponential_families(v2, draw):
    rng, runs, T, n = np.random.default_rng(14), 40000, 8, 4

    def mean_of(mu):
        size = (T, runs)
        if draw == "exponential":
            return rng.exponential(mu, size).mean(0)
        return (rng.binomial(4, mu / 4, size) if draw == "binomial" else rng.poisson(mu, size)).mean(0)

    for policy in ("replace", "accumulate"):
        mu, values = np.full(runs, 1.5), []
        for g in range(1, n + 1):
            fresh = mean_of(mu)
            mu = fresh if policy == "replace" else mu + (fresh - mu) / g
            values.append(mu)
        v0 = {"exponential": 1.5**2, "binomial": 1.5 - 1.5**2 / 4, "poisson": 1.5}[draw]
        values = np.stack(values, 1)
        if v2:
            variance = (values * (draw == "binomial") + v2 * values**2) / v0
            close(variance, evaluate(f"exponential_family.variance_{policy}", T=T, n=n, v2=v2))
        close((values - 1.5) ** 2 / v0, evaluate(f"exponential_family.mean_error_{policy}", T=T, n=n, v2=v2))


def test_wright_fisher():
    rng, runs, T = np.random.default_rng(15), 4000, [12, 20, 9, 15]
    p = np.arange(1.0, 31) ** -1.3
    start = share = np.tile(p / p.sum(), (runs, 1))
    alive, mixed = [], []
    for draws in T:
        share = rng.multinomial(draws, share / share.sum(1, keepdims=True)) / draws
        alive.append((share > 0).sum(1))
        mixed.append((1 - (share**2).sum(1)) / (1 - (start[0] ** 2).sum()))
    close(np.stack(alive, 1), evaluate("categorical.survivors", T=T, num_symbols=30, beta=1.3))
    close(np.stack(mixed, 1), evaluate("categorical.heterozygosity_replace", T=T))


@pytest.mark.parametrize("policy", ["replace", "accumulate"])
def test_kernel_density(policy):
    rng, runs, T, h = np.random.default_rng(16), 1500, [12, 8, 15], [0.5, 0.3, 0.4]

    def overlap(a, b, variance):
        gap = a[:, :, None] - b[:, None, :]
        return (np.exp(-(gap**2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)).mean((1, 2))

    rows, errors, zero = rng.standard_normal((runs, T[0])), [], np.zeros((runs, 1))
    for g in range(3):
        errors.append(overlap(rows, rows, 2 * h[g] ** 2) - 2 * overlap(rows, zero, 1 + h[g] ** 2) + 1 / np.sqrt(4 * np.pi))
        if g < 2:
            chosen = np.take_along_axis(rows, rng.integers(rows.shape[1], size=(runs, T[g + 1])), 1)
            fresh = chosen + h[g] * rng.standard_normal(chosen.shape)
            rows = fresh if policy == "replace" else np.concatenate([rows, fresh], 1)
    close(np.stack(errors, 1), evaluate(f"kde.mise_{policy}", T=T, h=h))


def test_a_stream_of_real_rows_and_a_window():
    """The classical limit of least squares: means of one number, exact for this loop."""
    rng, runs, r, T, n = np.random.default_rng(17), 40000, 3, 5, 5
    total, count, mean, errors = np.zeros(runs), 0, np.zeros(runs), []
    for _ in range(n):
        total += rng.standard_normal(runs) * np.sqrt(r) + T * mean + rng.standard_normal(runs) * np.sqrt(T)
        count += r + T
        mean = total / count
        errors.append(mean**2)
    close(np.stack(errors, 1), evaluate("mean.real_stream", r=r, T=T, n=n))

    weights = np.zeros((400, 400))  # of every batch's noise in the model of every generation, K = 3
    for g in range(400):
        window = range(max(0, g - 2), g + 1)
        for batch in window:
            weights[g] += ((weights[batch - 1] if batch else 0) + np.eye(400)[batch]) / len(window)
    growth = (weights[-1] ** 2).sum() - (weights[-2] ** 2).sum()
    assert growth == pytest.approx(evaluate("mean.window_slope", K=3, T=1), rel=1e-3)

"""The policies of the literature, each a composition of parts.

T is the number of real rows, d the number of parameters, s^2 the noise, n the generation. Constants hold for least squares in the
classical limit (d fixed, T large), in units of the error of generation 1, s^2 d / T; see docs/policies.md for measured values.
"""

from __future__ import annotations

from refeed.core.errors import StudyError
from refeed.policies.amounts import AsAccumulated, AsPool, Constant
from refeed.policies.keeps import (
    Everything,
    Forgetting,
    Latest,
    MoreRealAndLatest,
    OnlyReal,
    PinnedReservoir,
    RealAndLatest,
    Reservoir,
    Strata,
    Window,
)
from refeed.policies.parts import Composite
from refeed.policies.trains import All, RealShare, RealShareFloor, RealWeight, Subsample


def replace(*, rows: int | None = None) -> Composite:
    """Model n trains only on rows drawn from model n - 1.

    Error: n. Also called the fully synthetic loop (Alemohammad et al., arXiv:2307.01850), recursive training (Shumailov et al.,
    arXiv:2305.17493). Source: Gerstgrasser et al., arXiv:2404.01413.

    `rows`: rows sampled every generation; as many as the real data by default.
    """
    return Composite(sample=Constant(rows=rows), kept=Latest(), train=All())


def accumulate(*, rows: int | None = None) -> Composite:
    """Real rows and every synthetic set so far: the training set is n times the real data, the real share 1/n.

    Error: sum 1/i^2, at most pi^2/6 = 1.645. Also called data accumulation, augment. Source: Gerstgrasser et al., arXiv:2404.01413.

    `rows`: rows sampled every generation; as many as the real data by default.
    """
    return Composite(sample=Constant(rows=rows), kept=Everything(), train=All())


def replace_multiple() -> Composite:
    """Only rows from the latest model, but n times as many: the control that matches accumulate's training-set size.

    Error: sum 1/i, about log n. It tells what accumulate gains by keeping old rows from what it gains by training on more. Source:
    Gerstgrasser et al., arXiv:2404.01413.
    """
    return Composite(sample=AsAccumulated(), kept=Latest(), train=All())


def accumulate_subsample(*, rows: int | None = None) -> Composite:
    """Keep everything, as accumulate does, but fit each model on a uniform subsample of fixed size, without replacement.

    The compute of replace with the memory of accumulate. Error: tends to 3 zeta(2) - 2 = 2.935 for subsamples of T rows, as long as
    d < T/2 or so. Source: Kazdan et al., arXiv:2410.16713.

    `rows`: size of the subsample; as many as the real data by default.
    """
    return Composite(sample=Constant(), kept=Everything(), train=Subsample(rows=rows))


def fixed_real(*, rows: int | None = None) -> Composite:
    """The real rows, always the same, and the latest synthetic ones.

    Error: 1 + n_s / (n_r + 2 n_s), at most 1.5. Also called the synthetic augmentation loop (Alemohammad et al., arXiv:2307.01850).

    `rows`: rows sampled every generation; as many as the real data by default.
    """
    return Composite(sample=Constant(rows=rows), kept=RealAndLatest(), train=All())


def fresh_real(*, rows: int | None = None) -> Composite:
    """Real rows that no generation has seen, as many as at the start, and the latest synthetic ones, every row weighing the same.

    Error for n_r = n_s: 2/3 in the classical limit, and more than replace's where d is close to the number of rows. Also called the
    fresh data loop (Alemohammad et al., arXiv:2307.01850).

    `rows`: rows sampled every generation; as many as the real data by default.
    """
    return Composite(sample=Constant(rows=rows), kept=MoreRealAndLatest(), train=All(), draws_real=True)


def weighted_fresh_real(*, rows: int | None = None, weight: float | None = None) -> Composite:
    """Fresh real rows and the latest synthetic ones, the real ones weighing the golden-ratio weight w* (or `weight`) together.

    Error: w* = (sqrt(k^2 + 4k) - k) / 2 for k real rows to a synthetic one, .618 at k = 1, the least that any weight reaches.
    Source: He, Xu, Cheng, arXiv:2502.18049.

    `rows`: rows sampled every generation; as many as the real data by default. `weight`: of the real rows, in [0, 1].
    """
    return Composite(sample=Constant(rows=rows), kept=MoreRealAndLatest(), train=RealWeight(weight=weight), draws_real=True)


def growing(*, ratio: float = 2.0) -> Composite:
    """Accumulate, with batches that let the pool grow `ratio`-fold every generation.

    Error: tends to 1 + 1/r, 1.5 for r = 2: fewer, larger batches are better than many small ones.
    """
    if not ratio > 1:
        raise StudyError(f"ratio must be above 1, not {ratio}: the pool cannot shrink.", at="ratio")
    return Composite(sample=AsPool(times=ratio - 1), kept=Everything(), train=All())


def window(*, generations: int = 2, rows: int | None = None) -> Composite:
    """The rows of the last `generations` generations.

    Error: linear in n, with the slope 4 / (K + 1)^2 for a window of K: slower than replace, but not bounded.

    `rows`: rows sampled every generation; as many as the real data by default.
    """
    return Composite(sample=Constant(rows=rows), kept=Window(generations=generations), train=All())


def reservoir(*, rows: int | None = None) -> Composite:
    """A uniform sample of fixed size of all rows ever made, real ones among them: storage is bounded for ever.

    Error: 2 H_n - H_n^(2), about 2 log n, in units of s^2 d / M. As the share of real rows falls as 1/n, real data is slowly lost.

    `rows`: capacity M; as many as the real data by default.
    """
    return Composite(sample=Constant(), kept=Reservoir(rows=rows), train=All())


def pinned_reservoir(*, rows: int | None = None) -> Composite:
    """All the real rows, pinned, and a uniform sample of fixed size of all synthetic rows.

    Bounded storage that never loses real data.

    `rows`: capacity of the synthetic part; as many as the real data by default.
    """
    return Composite(sample=Constant(), kept=PinnedReservoir(rows=rows), train=All())


def strata(*, rows: int | None = None) -> Composite:
    """A pool of fixed size with equal shares for every generation so far, real rows included.

    `rows`: capacity; as many as the real data by default.
    """
    return Composite(sample=Constant(), kept=Strata(rows=rows), train=All())


def forgetting(*, survival: float = 0.5, pin_real: bool = False) -> Composite:
    """Old rows survive each generation with the chance `survival`: exponential forgetting.

    A soft window of 1 / (1 - survival) generations. `pin_real` keeps the real rows for ever.
    """
    return Composite(sample=Constant(), kept=Forgetting(survival=survival, pin_real=pin_real), train=All())


def real_share(*, share: float = 0.5, rows: int | None = None) -> Composite:
    """Keep everything; train on as many rows as leave the real share at exactly `share`.

    Any fixed synthetic share leaves a floor that more data do not lower (Dohmatob et al. 2024, Strong Model Collapse).

    `rows`: at most so many rows to train on.
    """
    return Composite(sample=Constant(), kept=Everything(), train=RealShare(share=share, rows=rows))


def real_share_floor(*, share: float = 0.5) -> Composite:
    """Accumulate, but train on no more synthetic rows than leave the real share at `share` or above."""
    return Composite(sample=Constant(), kept=Everything(), train=RealShareFloor(share=share))


def real_only() -> Composite:
    """The control: every generation is fitted on the real rows alone, with its own seed.

    What moves under it is the noise of fitting. Error: 1.
    """
    return Composite(sample=Constant(), kept=OnlyReal(), train=All())

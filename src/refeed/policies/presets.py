"""The policies of the literature, each a composition of parts. T is the number of real rows, n the generation."""

from __future__ import annotations

from refeed.policies.parts import All, Composite, Constant, Everything, Growing, Latest, Subsample


def replace(*, rows: int | None = None) -> Composite:
    """Model n trains only on rows drawn from model n - 1.

    Test error climbs generation after generation: linearly for least squares, s^2 d n / (T - d - 1).
    Also called the fully synthetic loop (Alemohammad et al., arXiv:2307.01850). Source: Gerstgrasser et al., arXiv:2404.01413.

    `rows`: rows sampled every generation; as many as the real data by default.
    """
    return Composite(sample=Constant(rows=rows), kept=Latest(), train=All())


def accumulate(*, rows: int | None = None) -> Composite:
    """Real rows and every synthetic set so far: the training set is n times the real data, the real share 1/n.

    Test error stays bounded: at most pi^2/6 times that of generation 1 for least squares. Source: arXiv:2404.01413.

    `rows`: rows sampled every generation; as many as the real data by default.
    """
    return Composite(sample=Constant(rows=rows), kept=Everything(), train=All())


def replace_multiple() -> Composite:
    """Only rows from the latest model, but n times as many: the control that matches accumulate's training-set size.

    It tells what accumulate gains by keeping old rows from what it gains by training on more. Source: arXiv:2404.01413.
    """
    return Composite(sample=Growing(), kept=Latest(), train=All())


def accumulate_subsample(*, rows: int | None = None) -> Composite:
    """Keep everything, as accumulate does, but fit each model on a uniform subsample of fixed size, without replacement.

    The compute of replace with the memory of accumulate. For least squares the error tends to 3 zeta(2) - 2 = 2.93 times that of
    generation 1 in the classical limit. Source: Kazdan et al., arXiv:2410.16713.

    `rows`: size of the subsample; as many as the real data by default.
    """
    return Composite(sample=Constant(), kept=Everything(), train=Subsample(rows=rows))

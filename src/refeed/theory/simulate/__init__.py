"""Feedback loops simulated exactly in distribution, without their rows: orders of magnitude faster, in memory that knows no T.

Every function takes sizes by keyword, `runs` (independent lineages, batched) and `seed` (a number or a NumPy Generator), and
returns float64 arrays of shape (runs, n): one row a lineage, one column a generation. Why each is exact is said in its docstring
and tested by Kolmogorov-Smirnov against loops that materialise every row. Only accumulate_subsample cannot do without rows.

>>> from refeed.theory import simulate
>>> simulate.replace(d=100, T=10_000, n=10, runs=1000, seed=0).mean(axis=0)[-1].round(3)
0.101
"""

from refeed.theory.simulate.categorical import markov, wright_fisher
from refeed.theory.simulate.gaussian import gaussian
from refeed.theory.simulate.gram import accumulate
from refeed.theory.simulate.kernel import kde
from refeed.theory.simulate.pools import accumulate_subsample, history_mixture, reservoir
from refeed.theory.simulate.radial import fresh, replace
from refeed.theory.simulate.ridge import ridge_fresh, ridge_replace

__all__ = [
    "accumulate",
    "accumulate_subsample",
    "fresh",
    "gaussian",
    "history_mixture",
    "kde",
    "markov",
    "replace",
    "reservoir",
    "ridge_fresh",
    "ridge_replace",
    "wright_fisher",
]

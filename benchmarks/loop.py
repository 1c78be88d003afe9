"""The loop in memory against the loop that everyone writes: regression over 10 generations, microseconds a generation.

    python benchmarks/loop.py [d] [T] [lineages]      (10, 100 and 100 where not given)

Interleaved in one process, one thread, the median of nine rounds. `lstsq` materialises, concatenates and solves; `Gram` is the
NumPy that the loop itself runs (draw, X'X, solve), without any of its digests, seeds and bookkeeping.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from refeed import policies
from refeed.core.loop import Lineage, turns
from refeed.core.memory import Memory
from refeed.core.protocols import Policy
from refeed.core.seeds import Seed
from refeed.families.regression import ExcessRisk, LeastSquares, Linear, Relabel

D, T, LINEAGES = (int(argument) for argument in (*sys.argv[1:], *("10", "100", "100")[len(sys.argv) - 1 :]))
N, ROUNDS = 10, 9


def refeed(policy: Policy) -> None:
    parts = {"source": Linear(dimension=D, rows=T), "learner": LeastSquares(), "sampler": Relabel(), "metrics": (ExcessRisk(),)}
    for seed in range(LINEAGES):
        memory = Memory()
        for turn in turns(Lineage(policy=policy, seed=Seed(seed), **parts), N):
            memory.realise(turn.scores[0])


def lstsq(accumulates: bool) -> None:
    for seed in range(LINEAGES):
        rng, w, xs, ys = np.random.default_rng(seed), np.full(D, 0.3), [], []
        for _ in range(N):
            x = rng.standard_normal((T, D))
            y = x @ w + rng.standard_normal(T)
            xs, ys = ([*xs, x], [*ys, y]) if accumulates else ([x], [y])
            w = np.linalg.lstsq(np.concatenate(xs), np.concatenate(ys))[0]
            float(((w - 0.3) ** 2).sum())


def gram(accumulates: bool) -> None:
    for seed in range(LINEAGES):
        rng, w = np.random.default_rng(seed), np.full(D, 0.3)
        g, c = np.zeros((D, D)), np.zeros(D)
        for _ in range(N):
            x = rng.standard_normal((T, D))
            y = x @ w + rng.standard_normal(T)
            g, c = (g + x.T @ x, c + x.T @ y) if accumulates else (x.T @ x, x.T @ y)
            w = np.linalg.solve(g, c)
            float(((w - 0.3) ** 2).sum())


def main() -> None:
    for name, policy, accumulates in (("replace", policies.replace(), False), ("accumulate", policies.accumulate(), True)):
        runs: dict[str, Callable[[], None]] = {
            "refeed": lambda policy=policy: refeed(policy),
            "lstsq": lambda accumulates=accumulates: lstsq(accumulates),
            "Gram": lambda accumulates=accumulates: gram(accumulates),
        }
        seconds: dict[str, list[float]] = {run: [] for run in runs}
        for _ in range(ROUNDS):
            for run, do in runs.items():
                started = time.perf_counter()
                do()
                seconds[run].append(time.perf_counter() - started)
        cost = {run: statistics.median(found) / (LINEAGES * N) * 1e6 for run, found in seconds.items()}
        ratios = ", ".join(f"{cost['refeed'] / cost[run]:.2f} x {run}" for run in ("lstsq", "Gram"))
        print(f"{name:10}  " + "  ".join(f"{run} {value:5.1f} us" for run, value in cost.items()) + f"   refeed = {ratios}")


if __name__ == "__main__":
    main()

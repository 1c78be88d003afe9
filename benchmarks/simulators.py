"""Times the exact simulators against the loops that everyone writes, interleaved, and writes docs/theory/simulators.md.

python benchmarks/simulators.py            the whole table, about four minutes
python benchmarks/simulators.py --quick    the small cells only, nothing written
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import platform  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402

from refeed.theory import simulate  # noqa: E402

CELLS = [
    (10, 20, 10),
    (10, 100, 10),
    (10, 1000, 10),
    (10, 100, 100),
    (100, 200, 10),
    (100, 1000, 10),
    (100, 10_000, 10),
    (100, 200, 100),
    (500, 1000, 10),
]
LONGEST = 2e10  # rows x columns^2 that the slowest loop may solve for one lineage, or it is left out


def lstsq_loop(rng: np.random.Generator, d: int, T: int, n: int, *, keep: bool) -> float:
    """Materialise, concatenate, lstsq: one lineage."""
    w = np.zeros(d)
    xs, ys = np.empty((0, d)), np.empty(0)
    for _ in range(n):
        x = rng.standard_normal((T, d))
        y = x @ w + rng.standard_normal(T)
        xs, ys = (np.concatenate([xs, x]), np.concatenate([ys, y])) if keep else (x, y)
        w = np.linalg.lstsq(xs, ys, rcond=None)[0]
    return float(w @ w)


def gram_loop(rng: np.random.Generator, d: int, T: int, n: int, *, keep: bool) -> float:
    """Materialise once, keep X'X and X'y: the careful loop."""
    w, gram, cross = np.zeros(d), np.zeros((d, d)), np.zeros(d)
    for _ in range(n):
        x = rng.standard_normal((T, d))
        y = x @ w + rng.standard_normal(T)
        gram, cross = (gram + x.T @ x, cross + x.T @ y) if keep else (x.T @ x, x.T @ y)
        w = np.linalg.solve(gram, cross)
    return float(w @ w)


def pool_loop(rng: np.random.Generator, d: int, T: int, n: int, keep: str) -> float:
    """Rows of a reservoir, or of everything with a subsample of T for each fit, and lstsq: one lineage."""
    x, y = rng.standard_normal((T, d)), rng.standard_normal(T)
    w = np.linalg.lstsq(x, y, rcond=None)[0]
    for g in range(1, n):
        fresh = rng.standard_normal((T, d))
        labels = fresh @ w + rng.standard_normal(T)
        if keep == "reservoir":
            number = rng.hypergeometric(T, g * T, T)
            out, into = rng.choice(T, number, replace=False), rng.choice(T, number, replace=False)
            x[out], y[out] = fresh[into], labels[into]
            w = np.linalg.lstsq(x, y, rcond=None)[0]
        else:
            x, y = np.concatenate([x, fresh]), np.concatenate([y, labels])
            chosen = rng.choice(len(x), T, replace=False)
            w = np.linalg.lstsq(x[chosen], y[chosen], rcond=None)[0]
    return float(w @ w)


def kde_loop(rng: np.random.Generator, T: int, h: float, n: int) -> float:
    """Every row kept, the squared error of the last estimate by pairs of rows: one lineage."""
    rows = rng.standard_normal(T)
    for _ in range(n - 1):
        rows = np.concatenate([rows, rng.choice(rows, T) + h * rng.standard_normal(T)])
    pairs = sum(float(np.exp(-((rows - x) ** 2) / (4 * h**2)).sum()) for x in rows) / np.sqrt(4 * np.pi * h**2)
    single = float(np.exp(-(rows**2) / (2 + 2 * h**2)).sum()) / np.sqrt(2 * np.pi * (1 + h**2))
    return pairs / len(rows) ** 2 - 2 * single / len(rows) + 1 / np.sqrt(4 * np.pi)


def pools(rng: np.random.Generator, repetitions: int) -> list[str]:
    """The simulators whose gain is less, each against its loop."""
    jobs: list[tuple[str, str, Callable[[], object], int, Callable[[], object]]] = []
    sizes = ((10, 100, 10, 256), (10, 10_000, 10, 256), (100, 1000, 10, 2), (100, 10_000, 10, 2), (100, 50_000, 5, 2))
    for d, T, n, runs in sizes:
        fast = partial(simulate.reservoir, d=d, T=T, n=n, runs=runs, seed=rng)
        jobs.append(("reservoir", f"d {d}, T = M = {T:,}, n {n}", fast, runs, partial(pool_loop, rng, d, T, n, "reservoir")))
    for d, T, n, runs in ((10, 100, 10, 64), (100, 1000, 10, 2), (100, 10_000, 5, 1)):
        fast = partial(simulate.accumulate_subsample, d=d, T=T, n=n, runs=runs, seed=rng)
        loop = partial(pool_loop, rng, d, T, n, "subsample")
        jobs.append(("accumulate-subsample", f"d {d}, T = M = {T:,}, n {n}", fast, runs, loop))
    for T, n in ((1000, 5), (1000, 20)):
        fast = partial(simulate.kde, T=T, h=0.3, n=n, policy="accumulate", runs=1, seed=rng)
        jobs.append(("kde, accumulate", f"T {T:,}, n {n}", fast, 1, partial(kde_loop, rng, T, 0.3, n)))
    lines = ["| simulator | sizes, n generations | simulator, ms | loop, ms | ratio |", "|" + "---|" * 5]
    for name, size, call, runs, loop in jobs:
        times = [(milliseconds(call, runs), milliseconds(loop, 1)) for _ in range(repetitions)]
        quick, long = (statistics.median(column) for column in zip(*times, strict=True))
        lines.append(f"| {name} | {size} | {quick:.3f} | {long:.2f} | {long / quick:.1f} |")
        print(lines[-1], flush=True)
    return lines


def milliseconds(call: Callable[[], object], runs: int) -> float:
    begun = time.process_time()
    call()
    return (time.process_time() - begun) / runs * 1e3


def measure(rng: np.random.Generator, d: int, T: int, n: int, repetitions: int) -> dict[str, float]:
    """Median milliseconds a lineage of n generations, the contestants taking turns."""
    runs = 2048 if d <= 24 else max(2, 2000 // d)
    loops = max(1, min(20, int(2e7 / (T * n * d))))
    calls: dict[str, tuple[Callable[[], object], int]] = {
        "accumulate": (lambda: simulate.accumulate(d=d, T=T, n=n, runs=runs, seed=rng), runs),
        "replace": (lambda: simulate.replace(d=d, T=T, n=n, runs=20_000, seed=rng), 20_000),
        "gram, accumulate": (lambda: [gram_loop(rng, d, T, n, keep=True) for _ in range(loops)], loops),
        "lstsq, replace": (lambda: [lstsq_loop(rng, d, T, n, keep=False) for _ in range(loops)], loops),
    }
    if T * d * d * n * (n + 1) / 2 < LONGEST:
        calls["lstsq, accumulate"] = (lambda: [lstsq_loop(rng, d, T, n, keep=True) for _ in range(loops)], loops)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repetitions):
        for name, (call, number) in calls.items():
            times[name].append(milliseconds(call, number))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    quick = "--quick" in sys.argv
    rng = np.random.default_rng(0)
    header = "| d | T | generations | accumulate, ms | Gram loop, ms | lstsq loop, ms | against Gram | **against lstsq** "
    header += "| replace, us | lstsq loop, ms | **against lstsq** |"
    lines = [header, "|" + "---|" * 11]
    print(*lines, sep="\n")
    for d, T, n in CELLS[:3] if quick else CELLS:
        found = measure(rng, d, T, n, 3)
        slow = found.get("lstsq, accumulate")
        ratio = f"{slow / found['accumulate']:.0f}" if slow else "-"
        lines.append(
            f"| {d} | {T:,} | {n} | {found['accumulate']:.4f} | {found['gram, accumulate']:.2f} | "
            f"{f'{slow:.2f}' if slow else 'not run'} | {found['gram, accumulate'] / found['accumulate']:.0f} | {ratio} | "
            f"{found['replace'] * 1e3:.2f} | {found['lstsq, replace']:.2f} | {found['lstsq, replace'] / found['replace']:.0f} |"
        )
        print(lines[-1], flush=True)
    others = pools(rng, 1 if quick else 3)
    if not quick:
        page = Path(__file__).parents[1] / "docs" / "theory" / "simulators.md"
        page.write_text(text(lines, others), encoding="utf-8")
        print(f"Wrote {page}")


ABOUT = """# Exact simulators: time against the loop

Written by `python benchmarks/simulators.py`; do not edit. CPU milliseconds (or microseconds) a lineage of all generations,
median of 3, contestants interleaved in one process; {machine}.

{table}

- *lstsq loop*: materialise the rows, concatenate the pool, `numpy.linalg.lstsq`: what published scripts do, one lineage at a time.
  *Gram loop*: the careful version, which reads each row once.
- Both simulators are exact in distribution (tests/theory/test_simulators.py) and never see T: their memory is O(d^2) and O(1).
- accumulate is batched over lineages up to d = 24 and one lineage at a time in LAPACK above; replace costs O(1) for any d.
- Use one BLAS thread (OMP_NUM_THREADS=1, as the command line sets): with the default of two, accumulate at d = 100 was 37 times
  slower on this machine.
- Why only some 20 times at T = 2 d (10 generations): what is avoided is drawing and solving rows, O(T d^2) a generation and in the
  lstsq loop n/2 times that; what remains is O(d^3) for Bartlett's factor, its square and one solution. At T = 2 d a batch has no
  more numbers than two of its Gram matrices, so the ratio is n/2 times a constant, whatever the program. It grows with T/d and n.

## Where less is gained

The loops draw and keep their rows and call `lstsq`; the kernel loop sums over pairs of rows.

{others}

- *reservoir* is exact without rows, but carries a Gram matrix for every generation that still has rows in it: O(n d^3) a generation
  against O(T d^2). It gains where T is far above n d, and loses below.
- *accumulate-subsample* needs its rows (docs/theory/regression.md says why): it draws those that are used and gains accordingly.
- *kde, accumulate* keeps no row: each is recomputed from its number, by a walk of about ln n ancestors. Memory is a few blocks of
  4,096 rows.
- Variances with closed forms are laws (`regression.fresh_variance`, `regression.ridge_replace_variance`, ...); the others are what
  `simulate.ridge_fresh`, `simulate.accumulate(ridge=...)` and `simulate.reservoir` give.
"""


def text(table: list[str], others: list[str]) -> str:
    machine = f"{platform.machine()}, one thread, NumPy {np.__version__}, Python {platform.python_version()}"
    return ABOUT.format(machine=machine, table="\n".join(table), others="\n".join(others))


if __name__ == "__main__":
    main()

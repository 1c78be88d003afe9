"""How well the forecast's intervals cover curves whose future is known; writes docs/theory/forecast.md.

python benchmarks/forecast_calibration.py --levels    coverage on designs that the page does not use: what to widen by
python benchmarks/forecast_calibration.py             the page, about ten minutes on two cores
python benchmarks/forecast_calibration.py --quick     a few curves, nothing written
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import csv  # noqa: E402
import sys  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from concurrent.futures import ProcessPoolExecutor  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

from refeed.theory import forecast as module  # noqa: E402
from refeed.theory import simulate  # noqa: E402

NOISE = 0.02  # of measurement, in units of the first excess error
POLICIES = ("replace", "accumulate", "fresh-real", "reservoir", "falling")
ROOT = Path(__file__).parents[1]
REFERENCE = ROOT.parent / "shared" / "reference"


def reservoir(rng: np.random.Generator, d: int, rows: int, n: int) -> np.ndarray:
    """One lineage of least squares on a uniform reservoir, with its rows."""
    x, w, errors, seen = rng.standard_normal((rows, d)), np.zeros(d), [], rows
    y = rng.standard_normal(rows)
    for g in range(n):
        if g:
            fresh = rng.standard_normal((rows, d))
            labels = fresh @ w + rng.standard_normal(rows)
            seen += rows
            replaced = rng.hypergeometric(rows, seen - rows, rows)
            out, into = rng.permutation(rows)[:replaced], rng.permutation(rows)[:replaced]
            x[out], y[out] = fresh[into], labels[into]
        w = np.linalg.solve(x.T @ x, x.T @ y)
        errors.append(w @ w)
    return np.array(errors)


def curve(policy: str, d: int, rows: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """A loss curve of a least-squares loop: excess error in units of generation 1's mean, and measurement noise."""
    base = d / (rows - d - 1)
    if policy == "replace":
        clean = simulate.replace(d=d, T=rows, n=n, runs=1, seed=rng)[0] / base
    elif policy == "accumulate":
        clean = simulate.accumulate(d=d, T=rows, n=n, runs=1, seed=rng)[0] / base
    elif policy == "fresh-real":
        clean = simulate.fresh(d=d, n_real=rows // 2, n_synthetic=rows, T1=rows, n=n, runs=1, seed=rng)[0] / base
    elif policy == "reservoir":
        clean = reservoir(rng, d, rows, n) / base
    else:
        clean = rng.uniform(0.5, 3) * np.arange(1.0, n + 1) ** -rng.uniform(0.3, 1.2)
    return clean + NOISE * rng.standard_normal(n)


def judge(job: tuple[str, int, int, int, int, int, int]) -> list[dict[str, Any]]:
    """One set of curves forecast twice, with and without the policy: where the truth lies among the draws, and the decision."""
    policy, d, rows, k, to, lineages, number = job
    rng = np.random.default_rng([number, d, k, len(policy), lineages])
    curves = np.stack([curve(policy, d, rows, to, rng) for _ in range(lineages)])
    setting, scale, shift = module._prepare(curves[:, :k], to=to, dimension=None, floor=None)
    fits = {shape: module._fit(rng, shape, setting) for shape in module.SHAPES}
    truth, found = curves[:, -1].mean(), []
    for known in (policy, None):
        made = module._average(rng, fits, setting, known if known in module.POLICIES else None, scale, shift)
        last = made.draws[:, -1]
        low, high = np.quantile(last, [0.1, 0.9])
        found.append(
            {
                "job": job,
                "known": known is not None,
                "rank": float((last < truth).mean()),
                "miss": abs(float(np.median(last)) - truth),
                "width": high - low,
                "decision": made.decision,
            }
        )
    return found


def run(jobs: list[Any]) -> list[dict[str, Any]]:
    with ProcessPoolExecutor(2) as pool:
        return [entry for entries in pool.map(judge, jobs, chunksize=4) for entry in entries]


def covered(entries: list[dict[str, Any]], level: float) -> float:
    return float(np.mean([abs(entry["rank"] - 0.5) <= level / 2 for entry in entries]))


def levels() -> None:
    """Raw coverage on training designs, and the raw level that covers each nominal one."""
    jobs = [
        (policy, d, rows * d, k, to, 1, number)
        for policy in POLICIES[:3] + POLICIES[4:]
        for d in (5, 25, 60, 200)
        for rows in (4,)
        for k, to in ((5, 20), (8, 40), (6, 12))
        for number in range(1000, 1015)
    ]
    entries = run(jobs)
    for known in (True, False):
        part = [entry for entry in entries if entry["known"] == known]
        gaps = np.sort([2 * abs(entry["rank"] - 0.5) for entry in part])
        wide = {level: round(float(np.quantile(gaps, level)), 4) for level in (0.5, 0.8, 0.9, 0.95, 0.98)}
        print(
            "policy known" if known else "policy unknown",
            "raw coverage",
            {x: round(covered(part, x), 3) for x in wide},
            "use",
            wide,
        )


def table(number: int) -> Iterator[str]:
    jobs = [
        (policy, d, 4 * d, k, to, lineages, seed)
        for lineages in (1, 4)
        for d in (10, 100)
        for policy in POLICIES
        for k, to in ((5, 20), (8, 40))
        for seed in range(number if lineages == 1 else number // 3)
    ]
    jobs = [job for job in jobs if job[5] == 1 or job[0] in ("replace", "accumulate")]
    entries = run(jobs)
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for entry in entries:
        policy, d, _, k, to, lineages, _ = entry["job"]
        groups.setdefault((lineages, entry["known"], k, to, d, policy), []).append(entry)
    yield "| lineages | policy told | k to H | d | policy | 50 % | 80 % | 95 % | median miss | 80 % width | decisions |"
    yield "|" + "---|" * 11
    off = 0
    for key in sorted(groups, key=lambda key: (key[0], not key[1], key[4], key[2], key[5])):
        lineages, known, k, to, d, policy = key
        part = groups[key]
        found = [covered(part, module.widened(level)) for level in (0.5, 0.8, 0.95)]
        bad = [abs(value - level) > 0.03 for value, level in zip(found[1:], (0.8, 0.95), strict=True)]
        off += any(bad)
        cells = [f"{found[0]:.2f}"] + [f"**{value:.2f}**" if b else f"{value:.2f}" for value, b in zip(found[1:], bad, strict=True)]
        counts = Counter(e["decision"] for e in part).most_common(3)
        decisions = ", ".join(f"{name} {count / len(part):.2f}" for name, count in counts)
        miss, width = np.median([e["miss"] for e in part]), np.median([e["width"] for e in part])
        told = "yes" if known and policy in module.POLICIES else "no"
        covers = " | ".join(cells)
        yield f"| {lineages} | {told} | {k} to {to} | {d} | {policy} | {covers} | {miss:.2f} | {width:.2f} | {decisions} |"
    singles = [e for e in entries if e["job"][5] == 1]
    few = number // 3
    errors = f"{(0.16 / number) ** 0.5:.3f} and {(0.16 / few) ** 0.5:.3f}"
    yield f"\n{off} of {len(groups)} rows are off by more than 3 points at 80 or 95 % (**bold**). With {number} curves a row of one"
    yield f"lineage and {few} a row of four, the standard error of an 80 % entry is {errors}, so most of that is chance. Pooled:\n"
    yield "| single lineages | curves | 50 % | 80 % | 95 % |"
    yield "|---|---|---|---|---|"
    for title, chosen in pools(singles):
        rates = [covered(chosen, module.widened(level)) for level in (0.5, 0.8, 0.95)]
        bold = [f"**{r:.3f}**" if abs(r - x) > 0.03 else f"{r:.3f}" for r, x in zip(rates, (0.5, 0.8, 0.95), strict=True)]
        yield f"| {title} | {len(chosen)} | {' | '.join(bold)} |"


def pools(entries: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for known, told in ((True, "told"), (False, "not told")):
        part = [e for e in entries if e["known"] == known]
        for policy in POLICIES:
            if policy in module.POLICIES or not known:
                yield f"{policy}, {told}", [e for e in part if e["job"][0] == policy]
        for d in (10, 100):
            for k in (5, 8):
                yield f"d = {d}, k = {k}, {told}", [e for e in part if e["job"][1] == d and e["job"][3] == k]


def outside() -> Iterator[str]:
    """Curves that the forecast was not built from."""
    yield "| curve | k to H | policy told | truth | median | 80 % | 95 % | inside | decision |"
    yield "|" + "---|" * 9
    hits: dict[tuple[str, float], list[bool]] = {}
    for name, losses, policy in real_curves():
        for k in (5, 8):
            for known in (policy, None):
                if len(losses) <= k:
                    continue
                made = module.forecast(losses[:k], to=len(losses), policy=known)
                truth = losses[-1]
                spans = {level: made.interval(level) for level in (0.8, 0.95)}
                inside = {level: bool(low[-1] <= truth <= high[-1]) for level, (low, high) in spans.items()}
                for level in inside:
                    hits.setdefault(("told" if known else "not told", level), []).append(inside[level])
                text = [f"{low[-1]:.4g} to {high[-1]:.4g}" for low, high in spans.values()]
                says = "80 %" if inside[0.8] else "95 %" if inside[0.95] else "**no**"
                told = known or "no"
                yield (
                    f"| {name} | {k} to {len(losses)} | {told} | {truth:.4g} | {made.median[-1]:.4g} | {' | '.join(text)} | "
                    f"{says} | {made.decision} |"
                )
    yield ""
    for (told, level), found in sorted(hits.items()):
        yield f"- policy {told}, {level:.0%} intervals: {sum(found)} of {len(found)} last values inside."


def real_curves() -> Iterator[tuple[str, np.ndarray, str]]:
    names = {"Replace": "replace", "Accumulate": "accumulate", "Accumulate-Subsample": "accumulate-subsample"}
    for file, column, label in (
        ("followup_language_50_generations.csv", "test_ce", "language"),
        ("paper_vae.csv", "test_loss", "VAE"),
    ):
        with (REFERENCE / file).open() as lines:
            groups: dict[tuple[str, str], list[float]] = {}
            for row in csv.DictReader(lines):
                groups.setdefault((row.get("model", label), row["setting"]), []).append(float(row[column]))
        for (model, setting), losses in groups.items():
            policy = names.get(setting, "accumulate-subsample" if "ub" in setting else "accumulate")
            yield f"{model}, {setting}", np.array(losses), policy
    with (REFERENCE / "paper_geodiff.csv").open() as lines:
        rows = {row["run"]: float(row["val_local"]) for row in csv.DictReader(lines)}
    for prefix, policy in (("aug", "accumulate"), ("rep", "replace")):
        losses = np.array([rows["baseline_40K"], *(rows[f"{prefix}_{g}"] for g in range(1, 6))])
        yield f"GeoDiff local loss, {policy}", losses, policy


def main() -> None:
    if "--levels" in sys.argv:
        levels()
        return
    quick = "--quick" in sys.argv
    number = 6 if quick else 120
    lines = list(table(number))
    print("\n".join(lines), flush=True)
    real = list(outside()) if REFERENCE.exists() else ["The reference curves do not lie beside this repository."]
    print("\n".join(real))
    if not quick:
        page = ROOT / "docs" / "theory" / "forecast.md"
        page.write_text(ABOUT.format(table="\n".join(lines), outside="\n".join(real)), encoding="utf-8")
        print(f"Wrote {page}")


ABOUT = """# The forecast: how well it covers

Written by `python benchmarks/forecast_calibration.py`; do not edit. The model is in `refeed.theory.forecast`. Test curves
are least-squares loops (T = 4 d rows a generation; fresh-real: T/2 fresh real rows and T synthetic ones; falling: c n^-g
with random c and g), excess error in units of generation 1's mean, measurement noise .02. The reservoir loops are run with
their rows. Intervals are judged at the last generation H, having seen generations 1..k of each lineage. `lineages` is how
many seeds the forecast sees; it predicts their mean.

The posterior's own intervals are a little too narrow, as an effective dimension cannot be read from five numbers. So they
are widened by one fixed map, `refeed.theory.forecast.widened`, chosen on other designs (d = 5, 25, 60, 200; `--levels`), the
same for every policy.

## Loops like those it assumes

{table}

## Curves it was not built from

The 50-generation language runs (one run a setting), the VAE on CelebA (10 generations) and GeoDiff's local loss (6, the
model of real data first). Policies are told as their authors name them.

{outside}

## How to read this

- "With the policy told" is mostly the .9 prior on that policy's own shape; the rows without it are what k points alone tell.
- A median miss under replace is mostly the future's own noise: the standard deviation of the truth at d = 10, H = 20 is about 9.
- Real networks refit with a bias (finite training, drift of the optimum), which none of the exact shapes has.
"""


if __name__ == "__main__":
    main()

"""Write docs/policies.md: every named policy, what it is, and what it cost in the shipped study `policies`.

refeed run policies --workers 2
python benchmarks/policies.py runs/studies/policies
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np

from refeed import catalogue
from refeed.report import Results
from refeed.report.statistics import Estimate, paired_ratio
from refeed.theory import evaluate

PAGE = Path(__file__).parent.parent / "docs" / "policies.md"
D, T, N = 100, 2000, 10


def at_end(law: str, **parameters: object) -> float:
    """Error in generation N over that of generation 1, by a law."""
    curve = np.asarray(evaluate(law, n=N, **parameters))
    return float(curve[-1] / curve[0])


def window_of_two() -> float:
    """Each model is the mean of the two last batches, noises remembered batch by batch."""
    batches = {0: {0: 1.0}}  # the noise of batch g as seen from its rows: batch g carries the error of model g and its own noise
    models: dict[int, dict[int, float]] = {}
    for n in range(1, N + 1):
        inside = [0] if n == 1 else [n - 2, n - 1]
        models[n] = {k: np.mean([batches[b].get(k, 0.0) for b in inside]) for b in inside for k in batches[b]}
        batches[n] = models[n] | {n: 1.0}
    return sum(value**2 for value in models[N].values())


THEORY: dict[str, Callable[[], float]] = {
    "real-only": lambda: 1.0,
    "replace": lambda: at_end("regression.replace", d=D, T=T),
    "replace-multiple": lambda: at_end("regression.replace_multiple", d=D, T=T),
    "accumulate": lambda: at_end("regression.accumulate", d=D, T=T),
    "accumulate-subsample": lambda: at_end("mean.accumulate_subsample", T=T, M=T),
    "growing (ratio 1.25)": lambda: at_end("regression.accumulate", d=D, T=[T, *(0.25 * T * 1.25**i for i in range(N - 1))]),
    "fixed-real": lambda: at_end("regression.fixed_real", d=D, n_real=T, n_synthetic=T),
    "fresh-real": lambda: at_end("regression.fresh", d=D, n_real=T, n_synthetic=T, T1=T),
    "weighted-fresh-real": lambda: float(evaluate("regression.fresh_best_weight", ratio=1.0)),
    "window": window_of_two,
    "reservoir": lambda: at_end("mean.reservoir", T=T, M=T),
}


def main(folder: Path) -> None:
    results = Results.load(folder)
    head = textwrap.fill(
        HEAD.strip().format(seeds=len(results.study["seeds"]), generations=results.study["generations"]),
        130,
        break_on_hyphens=False,
    )
    columns = [
        "policy",
        "regression: error, last / first",
        "theory",
        "language: cross-entropy, last / first",
        "rows trained on",
        "real",
    ]
    lines = ["# Policies", "", head, "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for policy in results.policies:
        theory = f"{THEORY[policy]():.3g}" if policy in THEORY else "-"
        trained, share = composition(results, "language", policy)
        cells = [policy, ratio(results, "regression", policy), theory, ratio(results, "language", policy), trained, share]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", textwrap.fill(FOOT.strip(), 130), "", "## What each one is", ""]
    for name, target in catalogue.POLICIES.items():
        make = catalogue.load(target)
        options = ", ".join(f"`{option}`" for option in catalogue.option_names(make))
        lines += [f"### {name}", "", inspect.cleandoc(make.__doc__ or ""), "", f"Options: {options or 'none'}.", ""]
    PAGE.write_text("\n".join(lines).rstrip() + "\n")
    print(PAGE)


def ratio(results: Results, case: str, policy: str) -> str:
    quantity = results.headline(case)
    lineages = results.lineages(case, policy, quantity)
    if lineages is None or lineages.last < 2:
        return "-"
    estimate: Estimate = paired_ratio(lineages.at(lineages.last), lineages.at(1))
    interval = "" if estimate.low is None else f" ({estimate.low:.3g} to {estimate.high:.3g})"
    return f"{estimate.value:.3g}{interval}"


def composition(results: Results, case: str, policy: str) -> tuple[str, str]:
    """Rows of the last training set, and the real share among them, for the first seed."""
    rows = [
        row
        for row in results.composition.to_pylist()
        if (row["case"], row["policy"], row["seed"]) == (case, policy, results.study["seeds"][0])
    ]
    last = max(row["generation"] for row in rows)
    counts = {row["origin"]: row["rows"] for row in rows if row["generation"] == last}
    return f"{sum(counts.values()):,}", f"{counts.get(0, 0) / sum(counts.values()):.0%}"


HEAD = """
A policy decides how many rows to sample, which rows stay, and which the next model is fitted on. Below, what each one costs:
the shipped study `policies`, {seeds} lineages a policy, {generations} generations. Ratios are paired by seed (generation 1 is
the same model under every policy), geometric means with 95 % t intervals over lineages. Regression: least squares, d = 100,
2,000 rows, error = excess risk. Language: a transformer of 68k parameters on 200 stories of the grammar, held-out
cross-entropy, whose least possible value is the source's own entropy, so that its ratios are not to be compared in size with
those of the regression. Every fit there takes four epochs, so a policy with more rows trains for longer: real-only, with 200, is
the measure for those with 200, and ratios below 1 are in part bought by steps. This page is written by `benchmarks/policies.py`.
"""

FOOT = """
Theory: exact at this size for replace, replace-multiple, accumulate, growing and fresh-real; in the classical limit (d fixed,
many rows) for the others. The theory column is a ratio of means, the measured one a mean ratio; with five lineages of 100
coefficients they differ by a few percent.
"""


if __name__ == "__main__":
    main(Path(sys.argv[1]))

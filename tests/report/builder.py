"""Results folders made by hand, of the shape that runs leave, with numbers simulated by NumPy."""

from typing import Any

import numpy as np
import pyarrow as pa

from refeed.report.results import Results

POLICIES = ("replace", "accumulate", "replace-multiple")
ABOUT = {
    "replace": "Model n trains only on rows drawn from model n - 1.",
    "accumulate": "Real rows and every synthetic set so far.",
    "replace-multiple": "Only rows from the latest model, but n times as many.",
}
LAWS = {"replace": "replace", "accumulate": "accumulate", "replace-multiple": "replace_multiple"}
NOUNS = ("fox", "owl", "child", "baker", "cat", "sailor", "giant", "mouse")
QUANTITIES = [
    {"name": "cross_entropy", "unit": "nats per token", "better": "lower", "role": "risk", "reference": "source_entropy",
     "meaning": "mean negative log-likelihood of held-out real stories"},
    {"name": "source_entropy", "unit": "nats per token", "better": "neither", "role": "reference", "reference": "",
     "meaning": "the source's own negative log-likelihood of the same stories"},
    {"name": "grammaticality", "unit": "1", "better": "higher", "role": "quality", "reference": "",
     "meaning": "share of sampled stories that the grammar accepts"},
    {"name": "tail_recall", "unit": "1", "better": "higher", "role": "tail", "reference": "",
     "meaning": "share of the rare real words still produced"},
    {"name": "distinct_trigrams", "unit": "1", "better": "higher", "role": "diversity", "reference": "",
     "meaning": "distinct trigrams over all trigrams of a fixed budget"},
    {"name": "duplicates", "unit": "1", "better": "lower", "role": "audit", "reference": "",
     "meaning": "share of sampled stories that occur more than once"},
]  # fmt: skip


def excess_risks(policy: str, *, d: int, T: int, s: float, generations: int, rng: np.random.Generator) -> list[float]:
    """|w_n|^2 of one lineage of least squares whose truth is zero."""
    w, xs, ys, errors = np.zeros(d), [], [], []
    for generation in range(1, generations + 1):
        rows = T * (generation if policy == "replace-multiple" else 1)
        x = rng.standard_normal((rows, d))
        y = x @ w + s * rng.standard_normal(rows)
        if policy == "accumulate":
            xs, ys = [*xs, x], [*ys, y]
            x, y = np.concatenate(xs), np.concatenate(ys)
        w = np.linalg.lstsq(x, y, rcond=None)[0]
        errors.append(float(w @ w))
    return errors


def regression_case(name: str, *, d: int, T: int, s: float, labels: dict[str, Any] | None = None) -> dict[str, Any]:
    quantity = {"name": "excess_risk", "unit": "squared label", "better": "lower", "role": "risk", "reference": "",
                "meaning": "test error beyond the label noise"}  # fmt: skip
    return {
        "name": name,
        "family": "regression",
        "labels": labels or {},
        "source": {"kind": "linear", "dimension": d, "rows": T, "noise": s},
        "learner": {"kind": "ols"},
        "sampler": {"kind": "relabel", "design": "fresh"},
        "metrics": [{"name": "excess_risk", "quantities": [quantity]}],
        "headline": "excess_risk",
        "laws": {
            policy: [{"quantity": "excess_risk", "law": f"regression.{law}", "parameters": {"d": d, "T": T, "s": s}}]
            for policy, law in LAWS.items()
        },
    }


def language_case() -> dict[str, Any]:
    return {
        "name": "language",
        "family": "language",
        "labels": {},
        "source": {"kind": "story_grammar", "rows": 400},
        "learner": {"kind": "transformer", "layers": 2, "width": 64, "epochs": 5},
        "sampler": {"kind": "ancestral", "temperature": 1.0},
        "metrics": [{"name": "text", "quantities": QUANTITIES}],
        "headline": "cross_entropy",
        "laws": {},
    }


def language_scores(policy: str, *, generations: int, rng: np.random.Generator) -> dict[str, list[float]]:
    steps = np.arange(generations)
    pace = {"replace": 1.0, "accumulate": 0.05, "replace-multiple": 0.45}[policy]
    start = rng.normal(0, 0.01)
    noise = np.random.default_rng([rng.integers(99), len(policy)]).normal(0, 0.012, (5, generations)) * (steps > 0)
    entropy = 1.06 + start + 0.085 * pace * steps + noise[0] * (1 + pace * steps)
    return {
        "cross_entropy": entropy.tolist(),
        "source_entropy": [0.948] * generations,
        "grammaticality": np.clip(0.86 + 0.02 * pace * steps + noise[1], 0, 1).tolist(),
        "tail_recall": np.clip(0.71 * np.exp(-0.33 * pace * steps) + noise[2], 0, 1).tolist(),
        "distinct_trigrams": np.clip(0.47 * np.exp(-0.12 * pace * steps) + noise[3], 0, 1).tolist(),
        "duplicates": np.clip(0.01 * pace * steps + np.abs(noise[4]) * 0.1, 0, 1).tolist(),
    }


def story(rng: np.random.Generator, generation: int) -> str:
    a, b = rng.choice(NOUNS[: max(2, 8 - generation)], 2)
    return (
        f"Once upon a time there was a {a} who lived by the sea. One day the {a} met a {b}. The {b} was sad, for it had lost "
        f"its {rng.choice(['hat', 'song', 'lamp', 'spoon'])}. The {a} helped the {b} and they looked everywhere. In the end "
        "they found it under the old bridge, and both went home."
    )


def results(
    *,
    cases: list[dict[str, Any]] | None = None,
    seeds: int = 3,
    generations: int = 5,
    policies: tuple[str, ...] = POLICIES,
    ended: tuple[str, str, int, int] | None = None,
) -> Results:
    """A study like the demo. `ended` = (case, policy, seed, generation): that lineage stops there as non-finite."""
    cases = cases or [regression_case("regression", d=10, T=100, s=1.0), language_case()]
    scores: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    outcomes: list[dict[str, Any]] = []
    for number, case in enumerate(cases):
        for policy in policies:
            for seed in range(seeds):
                at = {"case": case["name"], "policy": policy, "seed": seed}
                rng = np.random.default_rng([number, seed])
                last = ended[3] if ended and ended[:3] == (case["name"], policy, seed) else generations
                for quantity, values in _values(case, policy, generations=generations, rng=rng).items():
                    unit = next(q["unit"] for q in case["metrics"][0]["quantities"] if q["name"] == quantity)
                    scores += (
                        at | {"generation": g, "quantity": quantity, "value": value, "unit": unit}
                        for g, value in enumerate(values[:last], start=1)
                    )
                parts += (at | part for part in _composition(policy, case["source"]["rows"], last))
                stopped = {"outcome": "completed", "sentence": "every generation was fitted and measured"}
                if last < generations:
                    stopped = {"outcome": "non-finite", "sentence": "the fitted coefficients hold NaN or infinite values"}
                outcomes.append(at | {"generation": last} | stopped)
    study = {
        "name": "demo",
        "question": "Does training on your own samples make models collapse, and does keeping the old data prevent it?",
        "generations": generations,
        "seeds": list(range(seeds)),
        "scale": "small",
        "cases": cases,
        "policies": [{"name": policy, "about": ABOUT.get(policy, "")} for policy in policies],
    }
    return Results(
        study,
        pa.Table.from_pylist(scores),
        pa.Table.from_pylist(parts),
        pa.Table.from_pylist(outcomes),
        _exhibits(policies, generations) if any(case["name"] == "language" for case in cases) else [],
        RUN,
    )


def grid(**options: Any) -> Results:
    """The study of the paper's regression figure: nine cases, rows x noise."""
    cases = [
        regression_case(f"T{T}-s{s:g}", d=32, T=T, s=s, labels={"source.rows": T, "source.noise": s})
        for T in (100, 316, 1000)
        for s in (0.1, 1.0, 10.0)
    ]
    return results(cases=cases, **options)


def _values(case: dict[str, Any], policy: str, *, generations: int, rng: np.random.Generator) -> dict[str, list[float]]:
    if case["family"] == "language":
        return language_scores(policy, generations=generations, rng=rng)
    source = case["source"]
    size = {"d": source["dimension"], "T": source["rows"], "s": source["noise"]}
    return {"excess_risk": excess_risks(policy, generations=generations, rng=rng, **size)}


def _composition(policy: str, rows: int, last: int) -> list[dict[str, int]]:
    parts = []
    for g in range(1, last + 1):
        if policy == "accumulate":
            parts += [{"generation": g, "origin": origin, "rows": rows} for origin in range(g)]
        else:
            parts.append({"generation": g, "origin": g - 1, "rows": rows * (g if policy == "replace-multiple" else 1)})
    return parts


def _exhibits(policies: tuple[str, ...], generations: int) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = [{"case": "language", "policy": "real", "seed": 0, "generation": 0, "kind": "text"}]
    shown += [
        {"case": "language", "policy": policy, "seed": 0, "generation": g, "kind": "text"}
        for policy in policies
        for g in range(1, generations + 1)
    ]
    for entry in shown:
        generation = entry["generation"]
        rng = np.random.default_rng([generation, len(entry["policy"]) if generation > 1 else 0])
        entry["items"] = [story(rng, generation) for _ in range(3)]
    return shown


RUN = {
    "command": "refeed run demo --workers 2",
    "started": "2026-01-15T10:30:00+00:00",
    "wall_seconds": 112.4,
    "engine": "process",
    "workers": 2,
    "steps": {
        "fit": {"total": 78, "run": 66, "reused": 12, "seconds": 171.2},
        "sample": {"total": 72, "run": 72, "reused": 0, "seconds": 31.9},
        "measure": {"total": 78, "run": 66, "reused": 12, "seconds": 9.3},
    },
    "environment": {"refeed": "0.1.0", "python": "3.11.9", "numpy": "2.4.6", "torch": "2.13.0", "platform": "Linux x86_64"},
}

"""What the user should know before trusting the numbers of a study: in the terminal, and at the top of the report."""

from __future__ import annotations

import itertools

import pyarrow.compute as pc

from refeed.report.results import Results

REPEATS = 0.02  # share of repeated rows, beyond that among real ones, from which it is said


def notices(results: Results, *, ended: bool = True) -> list[str]:
    """One sentence each: lineages that stopped (unless not `ended`) or went below a guard, what metrics note, and the audit."""
    lines = [row for row in results.outcomes.to_pylist() if row["sentence"] and (ended or row["outcome"] == "completed")]
    found = [
        f"{case}, {policy}: {said}." for case, policy, said in sorted({(r["case"], r["policy"], r["sentence"]) for r in lines})
    ]
    return found + _of_quantities(results) + _of_prompts(results) + _of_ledger(results)


def _of_quantities(results: Results) -> list[str]:
    """Each quantity with a notice that was ever above 0."""
    found = []
    for case in results.cases:
        for name, quantity in results.quantities(case).items():
            if not quantity.get("notice"):
                continue
            chosen = results.scores.filter((pc.field("case") == case) & (pc.field("quantity") == name))
            highest = pc.max(chosen["value"]).as_py()
            if highest is not None and highest > 0:
                found.append(f"{case}: up to {highest:.1%} {quantity['notice']}.")
    return found


def _of_prompts(results: Results) -> list[str]:
    """Where sampled rows begin with tokens of real ones: how much real text that is at most."""
    lines = results.ledger.to_pylist() if results.ledger is not None else []
    given = [(line["prompt_tokens"] / line["tokens"], line) for line in lines if line["prompt_tokens"]]
    if not given:
        return []
    share, line = max(given, key=lambda pair: pair[0])
    return [
        f"sampled rows begin with tokens of real ones, up to {share:.1%} of the tokens that a model is trained on ({line['case']}, "
        f"{line['policy']}, generation {line['generation']}). They count as real tokens in the ledger; the share of real rows "
        "leaves them out."
    ]


def _of_ledger(results: Results) -> list[str]:
    """What the audit of the sampled rows found wrong."""
    found = []
    lines = results.ledger.to_pylist() if results.ledger is not None else []
    for (case, policy), group in itertools.groupby(lines, key=lambda line: (line["case"], line["policy"])):
        audits = list(group)
        more = max(((line.get("repeats") or 0.0) - (line.get("repeats_real") or 0.0) for line in audits), default=0.0)
        if more > REPEATS:
            found.append(f"{case}, {policy}: up to {more:.1%} of the sampled rows repeat others, beyond those among real rows.")
        if same := [line["generation"] for line in audits if line.get("same_rows")]:
            found.append(
                f"{case}, {policy}: generation {', '.join(map(str, same))} sampled the same rows as another step of the study; "
                "the sampler may ignore its seed."
            )
    return found

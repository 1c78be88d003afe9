"""One line for each definition of "collapse", for there are at least eight and they disagree.

A verdict is *yes*, *no* or *cannot say*, read off a 95 % interval over lineages, with the number it rests on. What a study does
not measure is listed as not measured. Intervals are not corrected for the number of lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from refeed.report.results import Lineages, Results
from refeed.report.statistics import Estimate, mean_interval, paired_difference, paired_ratio, slope, slopes
from refeed.report.text import count, estimate_value, interval, number, title

Answer = Literal["yes", "no", "cannot say", "not measured"]
MARGIN = 0.10  # a change for the worse by less than this may count as none, where the interval excludes more


@dataclass(frozen=True, kw_only=True)
class Definition:
    """One meaning of "collapse". `role` is the role of the quantities that speak to it; `alarm` is the answer that worries."""

    name: str
    role: str
    says: str
    alarm: Answer = "yes"


RISES = Definition(name="risk rises", role="risk", says="test risk at the last generation is above that of generation 1")
DIVERGES = Definition(
    name="risk diverges",
    role="risk",
    says="the risk's growth in the later half is at least half of that in the earlier half (logarithmic growth slows)",
)
BETTER = Definition(name="better than", role="risk", says="paired difference of risk at the last generation", alarm="no")
CHANGES = (
    Definition(name="tails are lost", role="tail", says="rare real rows are produced less than at generation 1"),
    Definition(name="diversity shrinks", role="diversity", says="samples vary less than at generation 1"),
    Definition(name="support shrinks", role="support", says="fewer distinct outcomes are possible than at generation 1"),
    Definition(name="modes are lost", role="mode", says="whole groups of real rows are no longer produced"),
    Definition(name="quality falls", role="quality", says="rows look worse one by one; under collapse this may well improve"),
    Definition(name="rows repeat", role="audit", says="duplicates or other faults in the sampled rows grow"),
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer of one definition for one case and policy, the estimate behind it, and both in a sentence."""

    definition: Definition
    case: str
    policy: str
    answer: Answer
    sentence: str
    quantity: str = ""
    against: str = ""  # the policy compared with
    estimate: Estimate | None = None

    @property
    def label(self) -> str:
        return f"{self.definition.name} {self.against}".strip()

    @property
    def worries(self) -> bool:
        return self.answer == self.definition.alarm


def verdicts(results: Results, case: str) -> list[Verdict]:
    """Every verdict about a case, definition by definition, and within it policy by policy."""
    return list(_verdicts(results, case))


def _verdicts(results: Results, case: str) -> Iterator[Verdict]:
    policies = results.policies
    described = results.quantities(case)
    by_role: dict[str, list[str]] = {}
    for name, quantity in described.items():
        by_role.setdefault(quantity["role"], []).append(name)
    risk = next(iter(by_role.get("risk", [])), "")  # the headline where it is a risk, since it is listed first
    for definition, judge in ((RISES, _change), (DIVERGES, _divergence)):
        for policy in policies:
            yield judge(results, case, policy, definition, risk, described.get(risk, {}))
    reference = "replace" if "replace" in policies else policies[0]
    for policy in policies:
        if policy != reference:
            yield _comparison(results, case, policy, reference, risk, described.get(risk, {}))
    beside = [role for role in ("tail", "diversity", "support", "mode") if by_role.get(role)]
    for definition in CHANGES:
        for name in by_role.get(definition.role, [""]):
            for policy in policies:
                verdict = _change(results, case, policy, definition, name, described.get(name, {}))
                yield _alone(verdict) if definition.role == "quality" and name and not beside else verdict


def _change(results: Results, case: str, policy: str, definition: Definition, name: str, quantity: dict[str, Any]) -> Verdict:
    """Has the quantity changed for the worse between generation 1 and the last one?"""
    place = {"definition": definition, "case": case, "policy": policy, "quantity": name}
    lineages = results.lineages(case, policy, name) if name else None
    if lineages is None:
        return Verdict(answer="not measured", sentence=_unmeasured(definition), **place)  # type: ignore[arg-type]
    last = lineages.last
    estimate = paired_ratio(lineages.at(last), lineages.at(1)) if last > 1 else None
    if estimate is None:
        sentence = f"{title(name)}: nothing to compare with generation 1"
        return Verdict(answer="cannot say", sentence=sentence, **place)  # type: ignore[arg-type]
    start = float(np.mean(list(lineages.at(1).values())))
    answer = _answer(estimate, worse=_worse(quantity), start=start)
    if estimate.scale == "ratio":
        change = f"at generation {last} is {number(estimate.value)} times that of generation 1"
    else:
        change = f"has changed by {estimate_value(estimate)} from generation 1 to {last}"
    sentence = f"{title(name)} {change}{_brackets(estimate)}{_missing(results, case, policy)}"
    return Verdict(answer=answer, sentence=sentence, estimate=estimate, **place)  # type: ignore[arg-type]


def _answer(estimate: Estimate, *, worse: int, start: float) -> Answer:
    """Yes: the interval lies on the worse side of "no change". No: it excludes a change for the worse of more than 10 %.

    `worse` is +1 where up is worse, -1 where down is, 0 where any change is.
    """
    if estimate.low is None or estimate.high is None:
        return "cannot say"
    margin = MARGIN if estimate.scale == "ratio" else MARGIN * abs(start)
    low, high = estimate.low - estimate.null, estimate.high - estimate.null
    if worse < 0:
        low, high = -high, -low
    if low > 0 or (worse == 0 and high < 0):
        return "yes"
    return "no" if high <= margin and (worse != 0 or low >= -margin) else "cannot say"


def _divergence(results: Results, case: str, policy: str, definition: Definition, name: str, quantity: dict[str, Any]) -> Verdict:
    """Does the growth of the risk not slow down? Its slope in the later half against half its slope in the earlier one."""
    place = {"definition": definition, "case": case, "policy": policy, "quantity": name}
    lineages = results.lineages(case, policy, name) if name else None
    if lineages is None:
        return Verdict(answer="not measured", sentence=_unmeasured(definition), **place)  # type: ignore[arg-type]
    last = lineages.last
    late = slope(lineages.generations, lineages.values, first=(last + 2) // 2, last=last) if last >= 5 else None
    if late is None:
        sentence = "five generations measured in every lineage are the least that show whether growth slows"
        return Verdict(answer="cannot say", sentence=sentence, **place)  # type: ignore[arg-type]
    answer, early, rest = _growth(lineages, last, worse=_worse(quantity) or 1)
    sentence = (
        f"{title(name)} changes by {number(late.value)} a generation{_brackets(late)} over generations {(last + 2) // 2} to "
        f"{last}, by {number(early)} over 1 to {(last + 1) // 2}{_missing(results, case, policy)}"
    )
    if rest is not None and rest.low is not None:
        sentence += f"; late minus half of early: {interval(rest)}"
    return Verdict(answer=answer, sentence=sentence, estimate=late, **place)  # type: ignore[arg-type]


def _growth(lineages: Lineages, last: int, *, worse: int) -> tuple[Answer, float, Estimate | None]:
    """The answer, the mean slope of the earlier half, and the interval of late - early / 2 by lineage."""
    whole = lineages.values[np.isfinite(lineages.values[:, lineages.generations <= last]).all(axis=1)]
    late = worse * slopes(lineages.generations, whole, first=(last + 2) // 2, last=last)
    early = worse * slopes(lineages.generations, whole, first=1, last=(last + 1) // 2)
    if len(late) < 2:
        return "cannot say", float(worse * early.mean()) if len(early) else float("nan"), None
    growing, rest = mean_interval(late.tolist()), mean_interval((late - early / 2).tolist())
    assert growing.low is not None
    assert growing.high is not None
    assert rest.low is not None
    assert rest.high is not None
    start = float(np.mean(list(lineages.at(1).values())))
    answer: Answer = "cannot say"
    if growing.low > 0 and rest.low > 0:
        answer = "yes"
    elif rest.high < 0 or growing.high * (last - 1) <= MARGIN * abs(start):
        answer = "no"  # it slows, or at its latest pace it would not add 10 % over the whole study
    return answer, float(worse * early.mean()), rest


def _comparison(results: Results, case: str, policy: str, reference: str, name: str, quantity: dict[str, Any]) -> Verdict:
    """Is the policy's risk below the reference policy's, seed by seed, at the last generation both have reached?"""
    place = {"definition": BETTER, "case": case, "policy": policy, "quantity": name, "against": reference}
    ours, theirs = (results.lineages(case, p, name) if name else None for p in (policy, reference))
    if ours is None or theirs is None:
        return Verdict(answer="not measured", sentence=_unmeasured(BETTER), **place)  # type: ignore[arg-type]
    last = min(ours.last, theirs.last)
    estimate = paired_difference(ours.at(last), theirs.at(last)) if last > 1 else None
    if estimate is None or estimate.low is None or estimate.high is None:
        sentence = f"{title(name)}: " + (
            "generation 1 is the same model under every policy" if last == 1 else "fewer than two seeds in common"
        )
        return Verdict(answer="cannot say", sentence=sentence, estimate=estimate, **place)  # type: ignore[arg-type]
    worse = _worse(quantity) or 1
    gain, loss = (estimate.high < 0, estimate.low > 0) if worse > 0 else (estimate.low > 0, estimate.high < 0)
    away = estimate.num_standard_errors
    sentence = f"{title(name)} at generation {last} differs by {estimate_value(estimate)} from {reference}{_brackets(estimate)}"
    if away is not None:
        sentence += f", {number(abs(away))} standard errors"
    sentence += _missing(results, case, policy) + _missing(results, case, reference)
    answer: Answer = "yes" if gain else "no" if loss else "cannot say"
    return Verdict(answer=answer, sentence=sentence, estimate=estimate, **place)  # type: ignore[arg-type]


def _alone(verdict: Verdict) -> Verdict:
    """Quality without diversity or tails is no evidence: precision goes to 1 while recall goes to 0."""
    warning = "; no diversity or tail is measured beside it, and quality alone may improve while the source is lost"
    answer: Answer = "cannot say" if verdict.answer == "no" else verdict.answer
    return Verdict(
        definition=verdict.definition,
        case=verdict.case,
        policy=verdict.policy,
        answer=answer,
        sentence=verdict.sentence + warning,
        quantity=verdict.quantity,
        estimate=verdict.estimate,
    )


def _worse(quantity: dict[str, Any]) -> int:
    return {"lower": 1, "higher": -1}.get(quantity.get("better", "lower"), 0)


def _brackets(estimate: Estimate) -> str:
    if estimate.low is None:
        return f" ({estimate.method})"
    return f" (95 % t interval {interval(estimate)}, {count(estimate.n, 'lineage')})"


def _missing(results: Results, case: str, policy: str) -> str:
    """What to add where lineages ended early, since an average over those that are left flatters the policy."""
    early = ended(results).get((case, policy), {})
    return f"; {policy}: {count(len(early), 'lineage')} ended early and {'is' if len(early) == 1 else 'are'} left out" * bool(early)


def ended(results: Results) -> dict[tuple[str, str], dict[int, dict[str, Any]]]:
    """The outcomes other than "completed", by (case, policy) and seed."""
    found: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for row in results.outcomes.to_pylist():
        if row["outcome"] != "completed":
            found.setdefault((row["case"], row["policy"]), {})[row["seed"]] = row
    return found


def _unmeasured(definition: Definition) -> str:
    return f"no metric of this study measures this ({definition.role})"

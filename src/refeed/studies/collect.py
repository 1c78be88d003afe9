"""From a store of steps to tidy tables: what a study found, what its models were trained on, and how each lineage ended."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from refeed import catalogue
from refeed.core.protocols import Policy
from refeed.core.recipes import digest_of, recipe
from refeed.core.steps import Measure, rows_of
from refeed.studies.ledger import ledger
from refeed.studies.retention import EXHIBITED
from refeed.studies.study import Arm, Case, Study
from refeed.workspace import Workspace

if TYPE_CHECKING:
    from refeed.report.results import Results


def collect(study: Study, store: Workspace, run: dict[str, Any]) -> Results:
    """The results of `study` as far as the store has them."""
    import pyarrow as pa

    from refeed.report.results import SCHEMAS, Results

    columns: dict[str, list[Any]] = {name: [] for name in ("case", "policy", "seed", "generation", "quantity", "value", "unit")}
    for arm in study.arms:
        for generation, score in _scores(arm):
            record = store.records.get(score.digest)
            if record is None or record.values is None:
                continue
            units = {quantity.name: quantity.unit for quantity in score.metric.quantities}
            for name, value in record.values.items():
                row = (arm.case.name, arm.policy, arm.seed, generation, name, value, units.get(name, "1"))
                for column, entry in zip(columns.values(), row, strict=True):
                    column.append(entry)
    types = [pa.string(), pa.string(), pa.int64(), pa.int64(), pa.string(), pa.float64(), pa.string()]
    scores = pa.table({name: pa.array(columns[name], type) for name, type in zip(columns, types, strict=True)})
    return Results(
        study=describe(study),
        scores=scores,
        composition=_table(_composition(study), case=str, policy=str, seed=int, generation=int, origin=int, rows=int),
        outcomes=_table(_outcomes(study, store, run), case=str, policy=str, seed=int, generation=int, outcome=str, sentence=str),
        ledger=pa.Table.from_pylist(list(ledger(study, store)), schema=SCHEMAS["ledger"]),
        exhibits=list(_exhibits(study, store)),
        run=run,
    )


def describe(study: Study) -> dict[str, Any]:
    """The study as JSON data, for whoever reads the results without refeed."""
    return {
        "name": study.name,
        "question": study.question,
        "generations": study.generations,
        "seeds": list(study.seeds),
        "scale": study.scale,
        "digest": study.digest,
        "policies": [{"name": name, "about": _about(policy), "recipe": recipe(policy)} for name, policy in study.policies.items()],
        "cases": [_describe_case(case, study) for case in study.cases],
    }


def _describe_case(case: Case, study: Study) -> dict[str, Any]:
    setting = {"source": case.source, "learner": case.learner, "sampler": case.sampler}
    laws = {
        name: [law for m in case.metrics if hasattr(m, "laws") for law in m.laws(_preset(policy), **setting)]
        for name, policy in study.policies.items()
    }
    return {
        "name": case.name,
        "family": case.family,
        "labels": dict(case.labels),
        "source": recipe(case.source),
        "learner": recipe(case.learner),
        "sampler": recipe(case.sampler),
        "metrics": [{"name": m.name, "quantities": [vars(q) for q in m.quantities]} for m in case.metrics],
        "headline": next((q.name for m in case.metrics for q in m.quantities if q.role == "risk"), None),
        "start": case.start,
        "start_digest": case.given.digest if case.given else None,
        "first_learner": recipe(case.first_learner) if case.first_learner else None,
        "origins": getattr(case.source, "origins", None),
        "laws": {name: found for name, found in laws.items() if found},
    }


def _preset(policy: Policy) -> str:
    """The catalogue's name of a policy with its default options, whatever the study calls it; empty where it is none."""
    return _presets().get(digest_of(policy), "")


@cache
def _presets() -> dict[str, str]:
    return {digest_of(catalogue.load(target)()): name for name, target in catalogue.POLICIES.items()}


def _about(policy: Policy) -> str:
    target = catalogue.POLICIES.get(_preset(policy))
    text = (catalogue.load(target) if target else type(policy)).__doc__ or ""
    return text.strip().partition("\n")[0]


def _scores(arm: Arm) -> Iterator[tuple[int, Measure]]:
    return ((turn.generation, score) for turn in arm.turns for score in turn.scores)


def _composition(study: Study) -> Iterator[tuple[Any, ...]]:
    for arm in study.arms:
        for turn in arm.turns:
            for origin, rows in turn.train.rows_by_generation().items():
                yield arm.case.name, arm.policy, arm.seed, turn.generation, origin, rows


def _outcomes(study: Study, store: Workspace, run: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    failed = {error["arm"]: error for error in run.get("errors", ())}
    for number, arm in enumerate(study.arms):
        reached, outcome, sentence = 0, "completed", ""
        if arm.guard is not None:
            outcome, sentence = "low real share" if arm.on_low_real_share == "stop" else "completed", arm.guard
        for turn in arm.turns:
            needed = turn.scores if arm.lineage.source.rebuilds else turn.steps
            stop = next((r for s in turn.steps if (r := store.records.get(s.digest)) is not None and r.outcome), None)
            if stop is not None:
                outcome, sentence = str(stop.outcome), f"generation {turn.generation}: {stop.sentence}"
                break
            if not all(store.has(step) for step in needed):
                outcome, sentence = "not run", "a step that it stands on failed, or it was interrupted"
                if number in failed:
                    outcome, sentence = "failed", raised(failed[number]["traceback"])
                break
            reached = turn.generation
        yield arm.case.name, arm.policy, arm.seed, reached, outcome, sentence


def raised(traceback: str) -> str:
    """What a traceback ends with, on one line: the exception and its whole message, which may have several lines."""
    lines = traceback.strip().splitlines()
    last = max(number for number, line in enumerate(lines) if not line.startswith(" "))
    return ". ".join(line.strip().rstrip(".") for line in lines[last:]).removeprefix("refeed.core.errors.")


def _exhibits(study: Study, store: Workspace) -> Iterator[dict[str, Any]]:
    """A few rows of each generation, shown the family's way, for the first seed of every case and policy."""
    shown: set[str] = set()
    for arm in (arm for arm in study.arms if arm.seed == study.seeds[0]):
        family = catalogue.families().get(arm.case.family)
        if arm.lineage.source.rebuilds or family is None or (target := catalogue.load(family).exhibit) is None:
            continue
        about, show = catalogue.load(family), catalogue.load(target)
        portray = catalogue.load(about.portrait) if about.portrait else lambda model, *, world, rows: {}
        place = {"case": arm.case.name, "seed": arm.seed, "kind": about.exhibit_kind}
        if not store.has(arm.lineage.draw):
            continue
        world = store.realise(arm.lineage.draw)
        if arm.case.name not in shown:
            shown.add(arm.case.name)
            items = show(world.train, world=world, count=about.exhibit_count)
            panels = portray(None, world=world, rows=world.train)
            yield place | {"policy": "real", "generation": 0, "items": items, "panels": panels}
        for turn in arm.turns:
            if not store.has(turn.sampled.step) or store.outcome(turn.sampled.step):
                break
            # Of a trimmed shard only the first rows are left: enough to show, too few for a portrait of all.
            trimmed = study.rows == "needed"
            index = np.arange(min(EXHIBITED, turn.sampled.num_rows)) if trimmed else None
            rows = rows_of(turn.sampled, store.realise, index)
            items = show(rows, world=world, count=about.exhibit_count)
            panels = portray(store.realise(turn.model), world=world, rows=rows) if about.portrait and not trimmed else {}
            yield place | {"policy": arm.policy, "generation": turn.generation, "items": items, "panels": panels}


def _table(entries: Iterator[tuple[Any, ...]], **types: type) -> Any:
    import pyarrow as pa

    arrow = {str: pa.string(), int: pa.int64()}
    columns = list(zip(*entries, strict=True)) or [()] * len(types)
    return pa.table({n: pa.array(c, arrow[t]) for (n, t), c in zip(types.items(), columns, strict=True)})

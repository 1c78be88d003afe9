"""Study files: short TOML, overrides, one dial for scale, and errors that point to the line."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from refeed import catalogue
from refeed.core.errors import StudyError
from refeed.studies.resources import Resources
from refeed.studies.study import Case, Study
from refeed.studies.tables import (
    DEFAULT_POLICIES,
    apply_scale,
    assign,
    known,
    line_of,
    located,
    merge,
    mistake,
    override,
    refuse_unknown,
    typed,
)

CASE_KEYS = ("family", "source", "learner", "sampler", "metrics", "start", "first_learner", "grid")
STUDY_KEYS = (
    "question",
    "generations",
    "seeds",
    "policies",
    "controls",
    "min_real_share",
    "on_low_real_share",
    "rows",
    "resources",
    "cases",
    "scale",
)


def shipped() -> dict[str, str]:
    """The studies that come with refeed: name -> text."""
    folder = resources.files("refeed.studies") / "shipped"
    return {
        entry.name.removesuffix(".toml"): entry.read_text(encoding="utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".toml")
    }


def load_study(name: str, *, overrides: Sequence[str] = (), scale: str | None = None) -> Study:
    """The study called `name` (shipped, or the path of a TOML file), with `overrides` such as "source.rows=1000"."""
    path = Path(name)
    if path.suffix == ".toml" or "/" in name:
        try:
            text, where, title = path.read_text(encoding="utf-8"), str(path), path.stem
        except FileNotFoundError:
            raise StudyError(f"there is no study file {name}.", hint="Type: refeed studies   (lists the shipped ones)") from None
        except (IsADirectoryError, UnicodeDecodeError) as error:
            raise StudyError(f"{name} is not a readable study file: {error}.") from None
    else:
        texts = shipped()
        if name not in texts:
            raise StudyError(
                f"study {name!r} is not known{catalogue.did_you_mean(name, texts)}",
                hint=f"Shipped: {', '.join(texts)}. A file of your own: refeed run FILE.toml",
            )
        text, where, title = texts[name], f"the shipped study {name}", name
    return parse(text, name=title, where=where, overrides=overrides, scale=scale)


def parse(text: str, *, name: str, where: str = "the study", overrides: Sequence[str] = (), scale: str | None = None) -> Study:
    """A study from TOML text. Every mistake is a `StudyError` that names the key and, where it can, the line."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{where} is not valid TOML: {error}.") from None
    assigned: list[str] = []
    try:
        scale = apply_scale(table, scale, (*STUDY_KEYS, *CASE_KEYS))
        for text_of_override in overrides:
            assigned.append(override(table, text_of_override))
        return _study(table, name=name, scale=scale)
    except StudyError as error:
        line = line_of(text, error.at) if error.at and error.at not in assigned else None
        place = f"In {where}, line {line}." if line else f"In {where}."
        raise StudyError(error.message, hint=f"{error.hint}\n  {place}" if error.hint else place) from None


def _study(table: dict[str, Any], *, name: str, scale: str) -> Study:
    refuse_unknown(table, (*STUDY_KEYS, *CASE_KEYS), "")
    shared = {key: table[key] for key in CASE_KEYS if key in table}
    entries = table.get("cases", {"": {}})
    if not isinstance(entries, Mapping) or not all(isinstance(entry, Mapping) for entry in entries.values()):
        raise mistake("cases must be tables, as in [cases.language].", "cases")
    cases = [case for title, entry in entries.items() for case in _cases(title, merge(shared, entry))]
    return Study(
        name=name,
        question=typed(table, "question", str, ""),
        generations=typed(table, "generations", int, 5),
        seeds=_seeds(table.get("seeds", 3)),
        policies=_policies(table.get("policies", DEFAULT_POLICIES)) | _controls(table.get("controls", [])),
        min_real_share=_share(table.get("min_real_share", 0.0)),
        on_low_real_share=typed(table, "on_low_real_share", str, "stop"),
        rows=typed(table, "rows", str, "all"),
        resources=_resources(table.get("resources", {})),
        cases=cases,
        scale=scale,
    )


def _cases(title: str, table: dict[str, Any]) -> Iterator[Case]:
    prefix = f"cases.{title}." if title else ""
    refuse_unknown(table, CASE_KEYS, prefix)
    grid = table.pop("grid", {})
    if not isinstance(grid, Mapping) or not all(isinstance(values, list) and values for values in grid.values()):
        raise mistake('grid must give a list of values for each key, as in "source.rows" = [100, 1000].', f"{prefix}grid")
    for key in grid:
        if key.partition(".")[0] not in CASE_KEYS[:-1]:
            raise mistake(
                f"grid key {key!r} is not of a case.", f"{prefix}grid", hint=f"It starts with: {', '.join(CASE_KEYS[1:-1])}."
            )
    for values in itertools.product(*grid.values()):
        labels = dict(zip(grid, values, strict=True))
        cell = merge({}, table)
        for key, value in labels.items():
            assign(cell, key, value)
        label = ", ".join(f"{key.split('.')[-1]} {value}" for key, value in labels.items())
        yield _case(", ".join(filter(None, (title, label))) or "main", cell, labels, prefix)


def _case(name: str, table: dict[str, Any], labels: dict[str, Any], prefix: str) -> Case:
    if "family" not in table:
        raise mistake(f"{prefix or 'the study '}needs a 'family'.", f"{prefix}family", hint=known(catalogue.families()))
    try:
        family = catalogue.family(table["family"])
    except StudyError as error:
        raise mistake(error.message, f"{prefix}family", hint=error.hint) from None
    parts = {}
    for part, names in (("source", family.sources), ("learner", family.learners), ("sampler", family.samplers)):
        with located(f"{prefix}{part}"):
            parts[part] = catalogue.build(_with_kind(table.get(part, {}), family.default[part], names), names, part)
    if "first_learner" in table:  # the options in which generation 1 differs
        with located(f"{prefix}first_learner"):
            changed = merge(
                {"learner": _with_kind(table.get("learner", {}), family.default["learner"], family.learners)},
                {"learner": table["first_learner"]},
            )["learner"]
            parts["first_learner"] = catalogue.build(changed, family.learners, "learner")
    start = typed(table, "start", str, "scratch")
    entries = table.get("metrics", family.default["metrics"])
    if not isinstance(entries, list):
        raise mistake(f"metrics must be a list, not {entries!r}.", f"{prefix}metrics")
    with located(f"{prefix}metrics"):
        metrics = tuple(catalogue.build(entry, family.metrics, "metric") for entry in entries)
    case = Case(name=name, family=family.name, labels=labels, metrics=metrics, start=start, **parts)
    try:
        case.check()
    except StudyError as error:
        error.at = f"{prefix}{error.at or 'metrics'}"
        raise
    return case


def _with_kind(entry: Any, default: str, names: dict[str, str]) -> Any:
    """A table without `kind` is the family's default, or else the one plug-in that has all the options given."""
    if not isinstance(entry, Mapping) or "kind" in entry:
        return entry
    fitting = [name for name in (default, *names) if set(entry) <= set(catalogue.option_names(catalogue.load(names[name])))]
    return {"kind": fitting[0] if fitting else default} | dict(entry)


def _policies(entries: Any) -> dict[str, Any]:
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, str | Mapping) for entry in entries):
        raise mistake(f"policies must be a list of names or tables, not {entries!r}.", "policies")
    found: dict[str, Any] = {}
    for entry in entries:
        with located("policies"):
            entry = {"kind": entry} if isinstance(entry, str) else dict(entry)
            title = str(entry.pop("name", None) or _title(entry))
            if title in found:
                raise StudyError(f"policy {title!r} is named twice.", hint='Give one of them another name = "..."')
            found[title] = catalogue.build_policy(entry)
    return found


def _controls(names: Any) -> dict[str, Any]:
    if not isinstance(names, list):
        raise mistake(f"controls must be a list of names, not {names!r}.", "controls", hint=known(catalogue.CONTROLS))
    with located("controls"):
        return {name: catalogue.build(name, catalogue.CONTROLS, "control") for name in names}


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise mistake(f"min_real_share must be a fraction in [0, 1], not {value!r}.", "min_real_share")
    return float(value)


def _resources(entries: Any) -> dict[str, Resources]:
    if not isinstance(entries, Mapping) or not all(isinstance(entry, Mapping) for entry in entries.values()):
        raise mistake("resources must be tables by kind of step, as in [resources.fit].", "resources")
    found = {}
    for kind, options in entries.items():
        where = f"resources.{kind}"
        with located(where):
            found[kind] = Resources(**catalogue.check_options(Resources, dict(options), where, where=where))
    return found


def _title(entry: Mapping[str, Any]) -> str:
    def plain(value: Any) -> Any:
        return value.get("kind", value) if isinstance(value, Mapping) else value

    options = ", ".join(f"{key} {plain(value)}" for key, value in entry.items() if key not in ("kind", "alter"))
    altered = entry.get("alter", [])
    steps = [str(plain(how)) for how in (altered if isinstance(altered, list) else [altered])]
    title = f"{entry.get('kind')} ({options})" if options else str(entry.get("kind"))
    return " + ".join([title, *steps])


def _seeds(value: Any) -> tuple[int, ...]:
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise mistake(f"seeds must be at least 1, not {value}.", "seeds")
        return tuple(range(value))
    if isinstance(value, list) and value and all(isinstance(seed, int) and not isinstance(seed, bool) for seed in value):
        return tuple(value)
    raise mistake(f"seeds must be a number of lineages or a list of whole numbers, not {value!r}.", "seeds")

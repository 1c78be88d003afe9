"""Names at the text boundary: what a study file may say, and the object it stands for.

In Python one passes objects. Names exist in study files and on the command line alone, in these tables; modules are imported when a
name is used. Packages add theirs by the entry points `refeed.families`, `refeed.policies` and `refeed.engines`.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from refeed.core.errors import MissingExtra, StudyError
from refeed.core.protocols import Family

FAMILIES = {
    "regression": "refeed.families.regression:FAMILY",
    "gaussian": "refeed.families.gaussian:FAMILY",
    "kde": "refeed.families.kde:FAMILY",
    "categorical": "refeed.families.categorical:FAMILY",
    "language": "refeed.families.language:FAMILY",
    "images": "refeed.families.images:FAMILY",
    "molecules": "refeed.families.molecules:FAMILY",
}

POLICIES = {
    "replace": "refeed.policies.presets:replace",
    "accumulate": "refeed.policies.presets:accumulate",
    "replace-multiple": "refeed.policies.presets:replace_multiple",
    "accumulate-subsample": "refeed.policies.presets:accumulate_subsample",
    "fixed-real": "refeed.policies.presets:fixed_real",
    "fresh-real": "refeed.policies.presets:fresh_real",
    "weighted-fresh-real": "refeed.policies.presets:weighted_fresh_real",
    "growing": "refeed.policies.presets:growing",
    "window": "refeed.policies.presets:window",
    "reservoir": "refeed.policies.presets:reservoir",
    "pinned-reservoir": "refeed.policies.presets:pinned_reservoir",
    "strata": "refeed.policies.presets:strata",
    "forgetting": "refeed.policies.presets:forgetting",
    "real-share": "refeed.policies.presets:real_share",
    "real-share-floor": "refeed.policies.presets:real_share_floor",
    "real-only": "refeed.policies.presets:real_only",
}


CONTROLS = {
    "real-only": "refeed.policies.presets:real_only",
    "matched-size": "refeed.policies.presets:replace_multiple",
    "matched-steps": "refeed.policies.wrappers:accumulate_matched_steps",
}

AMOUNTS = {
    "constant": "refeed.policies.amounts:Constant",
    "list": "refeed.policies.amounts:Listed",
    "linear": "refeed.policies.amounts:Linear",
    "geometric": "refeed.policies.amounts:Geometric",
    "as-accumulated": "refeed.policies.amounts:AsAccumulated",
    "as-pool": "refeed.policies.amounts:AsPool",
    "budget": "refeed.policies.amounts:Budget",
}

KEEPS = {
    "everything": "refeed.policies.keeps:Everything",
    "latest": "refeed.policies.keeps:Latest",
    "real-and-latest": "refeed.policies.keeps:RealAndLatest",
    "more-real-and-latest": "refeed.policies.keeps:MoreRealAndLatest",
    "only-real": "refeed.policies.keeps:OnlyReal",
    "window": "refeed.policies.keeps:Window",
    "reservoir": "refeed.policies.keeps:Reservoir",
    "pinned-reservoir": "refeed.policies.keeps:PinnedReservoir",
    "strata": "refeed.policies.keeps:Strata",
    "forgetting": "refeed.policies.keeps:Forgetting",
}

TRAINS = {
    "all": "refeed.policies.trains:All",
    "subsample": "refeed.policies.trains:Subsample",
    "real-share": "refeed.policies.trains:RealShare",
    "real-share-floor": "refeed.policies.trains:RealShareFloor",
    "real-weight": "refeed.policies.trains:RealWeight",
}

ALTERATIONS = {
    "top-fraction": "refeed.policies.filters:TopFraction",
    "threshold": "refeed.policies.filters:Threshold",
    "best-of": "refeed.policies.filters:BestOf",
    "resample": "refeed.policies.filters:Resample",
    "detector": "refeed.policies.filters:Detector",
    "distinct": "refeed.policies.filters:Distinct",
    "length": "refeed.policies.filters:Length",
    "noise": "refeed.policies.corruptions:Noise",
    "shuffle": "refeed.policies.corruptions:Shuffle",
    "drop-modes": "refeed.policies.corruptions:DropModes",
}

ENGINES = {
    "inline": "refeed.studies.engines.inline:Inline",
    "process": "refeed.studies.engines.process:Processes",
    "ray": "refeed.studies.engines.ray:Ray",
    "slurm": "refeed.studies.engines.slurm:Slurm",
}


@cache
def families() -> dict[str, str]:
    return FAMILIES | {point.name: point.value for point in entry_points(group="refeed.families")}


@cache
def policies() -> dict[str, str]:
    return POLICIES | {point.name: point.value for point in entry_points(group="refeed.policies")}


@cache
def engines() -> dict[str, str]:
    return ENGINES | {point.name: point.value for point in entry_points(group="refeed.engines")}


def family(name: str) -> Family:
    """The family of that name, its extra checked."""
    found: Family = load(look_up(name, families(), "family"))
    missing = [module for module in found.requires if importlib.util.find_spec(module) is None]
    if missing:
        raise MissingExtra(
            f"family {name!r} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed.",
            hint=f"Type: pip install 'refeed[{found.extra}]'",
        )
    return found


def decoder(source: str) -> Callable[..., dict[str, list[Any]]] | None:
    """What turns the rows of the family with that source class (`module:Class`) into columns for people, if it offers that."""
    for target in families().values():
        found: Family = load(target)
        if source in found.sources.values():
            return load(found.decode) if found.decode else None
    return None


def load(target: str) -> Any:
    """The object at `module:name`."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def look_up(name: Any, table: Mapping[str, str], what: str) -> str:
    """The target of `name` in `table`, or an error that says which names there are."""
    if isinstance(name, str) and name in table:
        return table[name]
    raise StudyError(f"{what} {name!r} is not known{did_you_mean(name, table)}", hint=f"Known: {', '.join(sorted(table))}.")


def did_you_mean(name: Any, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: a full stop, or the name that was probably meant."""
    close = difflib.get_close_matches(str(name).replace("_", "-"), list(known), n=1, cutoff=0.5)
    close = close or difflib.get_close_matches(str(name).replace("-", "_"), list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else "."


def build(entry: Any, table: Mapping[str, str], what: str, *, default: str | None = None) -> Any:
    """The object that `entry` of a study file stands for: a name, or a table with `kind` and options."""
    if isinstance(entry, str):
        entry = {"kind": entry}
    if not isinstance(entry, Mapping):
        raise StudyError(f"{what} must be a name or a table with a 'kind', not {entry!r}.")
    options = {key.replace("-", "_"): value for key, value in entry.items() if key != "kind"}
    kind = entry.get("kind", default)
    if kind is None:
        raise StudyError(f"{what} needs a 'kind'.", hint=f"Known: {', '.join(sorted(table))}.")
    make = load(look_up(kind, table, what))
    return make(**check_options(make, options, f"{what} {kind!r}", where=what))


def build_policy(entry: Mapping[str, Any]) -> Any:
    """A policy of a study file: a preset, or `kind = "composed"` of sample, keep and train; `alter` lists what is done to rows."""
    from refeed.policies.parts import Composite
    from refeed.policies.wrappers import Wrapped

    entry = dict(entry)
    alterations = entry.pop("alter", [])
    if not isinstance(alterations, list):
        alterations = [alterations]
    if entry.get("kind") == "composed":
        parts = {"sample": (AMOUNTS, "constant"), "keep": (KEEPS, "everything"), "train": (TRAINS, "all")}
        for option in entry:
            if option not in (*parts, "kind"):
                raise StudyError(
                    f"policy 'composed' has no option {option!r}{did_you_mean(option, parts)}", hint=f"Options: {parts}."
                )
        built = {part: build(entry.get(part, default), table, part) for part, (table, default) in parts.items()}
        draws = type(built["keep"]).__name__ == "MoreRealAndLatest"
        policy: Any = Composite(sample=built["sample"], kept=built["keep"], train=built["train"], draws_real=draws)
    else:
        policy = build(entry, policies(), "policy")
    if not alterations:
        return policy
    return Wrapped(policy=policy, alterations=tuple(build(how, ALTERATIONS, "alteration") for how in alterations))


def check_options(make: Callable[..., Any], options: dict[str, Any], what: str, *, where: str) -> dict[str, Any]:
    """`options` as the keyword arguments of `make`: unknown names and wrong types are refused, with the path of the option."""
    from pydantic import ValidationError

    model = _options_model(make)
    for name in options:
        if name not in model.model_fields:
            meant = did_you_mean(name, model.model_fields)
            hint = f"Options: {', '.join(model.model_fields) or 'none'}."
            if meant == "." and where in ("source", "learner", "sampler"):  # perhaps what the study says for another kind
                hint += f"\n  To leave out what the study says of another {where}: --set '{where}={{kind=\"...\", ...}}'"
            raise StudyError(f"{what} has no option {name!r}{meant}", hint=hint, at=f"{where}.{name}")
    try:
        checked = model.model_validate(options)
    except ValidationError as invalid:
        first = invalid.errors()[0]
        name = str(first["loc"][0])
        if first["type"] == "missing":
            raise StudyError(f"{what} needs the option {name!r}.", hint=f"Type: --set {where}.{name}=...", at=where) from None
        message = f"{what}: option {name!r} is wrong: {first['msg'].lower()}, but it is {first['input']!r}."
        raise StudyError(message, at=f"{where}.{name}") from None
    return {name: getattr(checked, name) for name in options}


def option_names(make: Callable[..., Any]) -> tuple[str, ...]:
    """The options of a plug-in: its keyword-only parameters."""
    return tuple(name for name, p in inspect.signature(make).parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY)


@cache
def _options_model(make: Callable[..., Any]) -> Any:
    from pydantic import ConfigDict, Field, create_model

    hints = typing.get_type_hints(make.__init__ if inspect.isclass(make) else make)
    parameters = inspect.signature(make).parameters
    fields: dict[str, Any] = {}
    for name in option_names(make):
        default = ... if parameters[name].default is inspect.Parameter.empty else parameters[name].default
        fields[name] = (hints[name], Field(default, strict=True if _is_scalar(hints[name]) else None))
    return create_model("Options", __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True), **fields)


def _is_scalar(hint: Any) -> bool:
    arguments = typing.get_args(hint) or (hint,)
    return all(argument in (int, float, str, bool, type(None)) for argument in arguments)

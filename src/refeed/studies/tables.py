"""Editing and locating keys of a study file: scale, overrides, and the line that a mistake stands in."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from refeed import catalogue
from refeed.core.errors import StudyError

SCALES = ("tiny", "small", "paper")
DEFAULT_POLICIES = ["replace", "accumulate"]


def apply_scale(table: dict[str, Any], scale: str | None, keys: Sequence[str]) -> str:
    """Apply what the file says under [scale.NAME], for tiny after [scale.small]; all scales are checked, also those not chosen."""
    scales = table.pop("scale", {})
    if not isinstance(scales, Mapping) or not all(isinstance(changes, Mapping) for changes in scales.values()):
        raise mistake("scale must be tables, as in [scale.tiny].", "scale")
    for name, changes in scales.items():
        if name not in SCALES:
            raise mistake(f"scale {name!r} is not known{catalogue.did_you_mean(name, SCALES)}", f"scale.{name}", hint=known(SCALES))
        for key, _ in _flat(changes):
            if key.partition(".")[0] not in keys:
                message = f"scale.{name}: {key} is not an option{catalogue.did_you_mean(key, keys)}"
                raise mistake(message, f"scale.{name}.{key}", hint=known(keys))
    if scale is not None and scale not in SCALES:
        raise StudyError(f"scale {scale!r} is not known{catalogue.did_you_mean(scale, SCALES)}", hint=known(SCALES))
    if scale not in (None, "small") and scale not in scales:
        raise StudyError(f"this study has no sizes for --scale {scale}.", hint=f"It has: {', '.join(('small', *scales))}.")
    for name in ("small", "tiny") if scale == "tiny" else (scale or "small",):
        for key, value in _flat(scales.get(name, {})):
            change(table, key, value)
    return scale or "small"


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def override(table: dict[str, Any], text: str) -> str:
    """Apply "key=value" and return the key."""
    key, value = parse_override(text)
    if key.startswith("policy."):
        _override_policies(table, key.removeprefix("policy."), value)
    else:
        change(table, key, value)
    return key


def parse_override(text: str) -> tuple[str, Any]:
    """The dotted key and the value of "key=value"; a value that is not TOML is plain text, such as a path."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise StudyError(f"--set takes KEY=VALUE, not {text!r}.", hint="For example: --set generations=10")
    try:
        found = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        return key, value.strip()
    return key, found["value"] if len(found) == 1 else value.strip()


def change(table: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key wherever it counts: it takes the place of a grid's values, and of what single cases say."""
    cases = table.get("cases", {})
    first, *rest = key.split(".")
    if first == "cases" and rest and rest[0] not in cases:
        raise StudyError(
            f"there is no case {rest[0]!r}{catalogue.did_you_mean(rest[0], cases)}", hint=known(cases) if cases else None
        )
    assign(table, key, value)
    if isinstance(table.get("grid"), Mapping) and key in table["grid"]:
        table["grid"] = {name: values for name, values in table["grid"].items() if name != key}
    for case in cases.values() if isinstance(cases, Mapping) else ():
        if isinstance(case, dict) and first in case:
            change(case, key, value)


def _override_policies(table: dict[str, Any], option: str, value: Any) -> None:
    """`policy.rows=1000` sets the option of every policy of the study that has it."""
    given = table.get("policies", DEFAULT_POLICIES)
    if not isinstance(given, list):
        raise mistake(f"policies must be a list of names or tables, not {given!r}.", "policies")
    entries = [{"kind": entry} if isinstance(entry, str) else dict(entry) for entry in given]
    taken = 0
    for entry in entries:
        make = catalogue.load(catalogue.look_up(entry.get("kind"), catalogue.policies(), "policy"))
        if option in catalogue.option_names(make):
            entry[option] = value
            taken += 1
    if not taken:
        raise StudyError(f"no policy of this study has an option {option!r}.")
    table["policies"] = entries


def assign(table: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key. A name in the way ("source" = "text") becomes a table with that kind."""
    *parents, last = key.split(".")
    for parent in parents:
        child = table.get(parent)
        if isinstance(child, str):
            child = {"kind": child}
        table[parent] = dict(child) if isinstance(child, Mapping) else {}
        table = table[parent]
    if last == "source" and isinstance(value, str):
        value = {"kind": value}
    table[last] = value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        inner = merged.get(key)
        inner = {"kind": inner} if isinstance(inner, str) and isinstance(value, Mapping) else inner
        merged[key] = merge(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return merged


class located:
    """Adds the place of an error, unless it knows a more exact one."""

    def __init__(self, at: str) -> None:
        self.at = at

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, StudyError):
            _, dot, option = (error.at or "").partition(".")
            error.at = f"{self.at}{dot}{option}"


def mistake(message: str, at: str, *, hint: str | None = None) -> StudyError:
    return StudyError(message, hint=hint, at=at)


def known(names: Any) -> str:
    return f"Known: {', '.join(names)}."


def refuse_unknown(table: Mapping[str, Any], names: Sequence[str], prefix: str) -> None:
    for key in table:
        if key not in names:
            raise mistake(
                f"{prefix}{key} is not an option{catalogue.did_you_mean(key, names)}",
                f"{prefix}{key}",
                hint=known(names),
            )


def typed(table: Mapping[str, Any], key: str, kind: type, default: Any) -> Any:
    value = table.get(key, default)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise mistake(f"{key} must be {'a whole number' if kind is int else 'text'}, not {value!r}.", key)
    return value


def line_of(text: str, key: str) -> int | None:
    """The line of `text` that sets the dotted `key`, or the nearest table around it."""
    best: tuple[int, int | None] = (0, None)
    header = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if table := re.match(r"\s*\[+([^\]]+)\]+", line):
            header = f"{table[1].strip()}."
            names = [header[:-1]]
        elif pair := re.match(r'\s*("?[\w.-]+"?)\s*=', line):
            outer = header + pair[1].strip('"')
            names = [outer, *(f"{outer}.{inner}" for inner in re.findall(r"[{,]\s*([\w-]+)\s*=", line))]
        else:
            continue
        for name in names:
            if (key == name or key.startswith(f"{name}.")) and len(name) > best[0]:
                best = (len(name), number)
    return best[1]

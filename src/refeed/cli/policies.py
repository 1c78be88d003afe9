"""`refeed policies`: what a study file may say under `policies`, with options and definitions."""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from refeed.cli.options import Json


def policies(
    name: Annotated[str | None, typer.Argument(help="A policy, part or alteration, to be shown with its definition.")] = None,
    json_output: Json = False,
) -> None:
    """List policies, the parts they are composed of, and what may be done to rows before they are kept."""
    from refeed import catalogue
    from refeed.core.errors import StudyError

    tables = {
        "policies": catalogue.policies(),
        "sample": catalogue.AMOUNTS,
        "keep": catalogue.KEEPS,
        "train": catalogue.TRAINS,
        "alter": catalogue.ALTERATIONS,
        "controls": catalogue.CONTROLS,
    }
    made = {key: {kind: catalogue.load(target) for kind, target in table.items()} for key, table in tables.items()}
    if name is not None:
        found = [(key, table[name]) for key, table in made.items() if name in table]
        if not found:
            known = [kind for table in made.values() for kind in table]
            raise StudyError(f"{name!r} is not known{catalogue.did_you_mean(name, known)}", hint="Type: refeed policies")
        made = {key: {name: what} for key, what in found}
    about = {
        key: {kind: {"options": _options(what), "about": inspect.getdoc(what) or ""} for kind, what in table.items()}
        for key, table in made.items()
    }
    if json_output:
        print(json.dumps(about))
    elif name is not None:
        print("\n\n".join(_whole(key, name, entries[name]) for key, entries in about.items()))
    else:
        print("\n\n".join(f"{key}\n{_lines(entries)}" for key, entries in about.items()))


def _options(what: object) -> dict[str, str]:
    """The options of a plug-in with their defaults as text; empty where one must be given or follows from the data."""
    parameters = inspect.signature(what).parameters.values()  # type: ignore[arg-type]
    keywords = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    return {p.name: "" if p.default in (inspect.Parameter.empty, None) else json.dumps(p.default) for p in keywords}


def _signature(options: dict[str, str]) -> str:
    return ", ".join(f"{name} = {default}" if default else name for name, default in options.items())


def _lines(entries: Mapping[str, Mapping[str, Any]]) -> str:
    width = max(map(len, entries))
    lines = []
    for kind, entry in entries.items():
        head = str(entry["about"]).partition("\n")[0]
        options = _signature(entry["options"])
        text = f"{head} [{options}]" if options else head
        lines.append(textwrap.fill(text, 118, initial_indent=f"  {kind:{width}}  ", subsequent_indent=" " * (width + 4)))
    return "\n".join(lines)


def _whole(key: str, kind: str, entry: Mapping[str, Any]) -> str:
    options = _signature(entry["options"])
    return f"{kind} ({key})\n\n{entry['about']}\n\nOptions: {options or 'none'}"

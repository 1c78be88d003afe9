"""`refeed theory`: closed forms for feedback loops, by name."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from refeed.cli.options import Json
from refeed.core.errors import UserError


def theory(
    law: Annotated[str | None, typer.Argument(metavar="[LAW]", help="A law's name; without it, all are listed.")] = None,
    values: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="T=100, or by generation T=60,20,40.")
    ] = None,
    json_output: Json = False,
) -> None:
    """List the closed-form laws, or evaluate one: refeed theory regression.accumulate d=10 T=100 n=10"""
    from refeed.theory import TheoryError, evaluate, find, laws

    if law is None:
        if json_output:
            print(json.dumps([_about(found) for found in laws().values()]))
            return
        width = max(map(len, laws()))
        for found in laws().values():
            print(f"{found.name:{width}}  {found.kind:15}  {_line(found.summary)}")
        return
    try:
        found = find(law)
        given = dict(_assignment(text) for text in values or [])
        if not given and found.required:
            _describe(found)
            return
        value = evaluate(law, **given)
    except TheoryError as error:
        raise UserError(f"{error}.", hint=None if law in laws() else "Type: refeed theory   (lists the laws)") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{law} cannot take these values: {error}.", hint=f"Type: refeed theory {law}   (describes it)") from None
    entries = value.tolist() if hasattr(value, "tolist") else value
    if json_output:
        print(json.dumps(_about(found) | {"given": given, "value": entries}))
        return
    _show(entries, given.get("n"), curve="n" in found.parameters)


def _about(found: Any) -> dict[str, Any]:
    return {
        "law": found.name,
        "kind": found.kind,
        "summary": found.summary,
        "parameters": list(found.parameters),
        "reference": found.reference,
    }


def _line(summary: str) -> str:
    """The statement up to the formula's first full stop, short enough for one line."""
    return summary if len(summary) <= 100 else summary[:99].rstrip() + "…"


def _describe(found: Any) -> None:
    import inspect

    print(f"{found.name}: {found.kind}\n")
    print(inspect.getdoc(found.function))
    print(f"\nReference: {found.reference}")
    optional = [name for name in found.parameters if name not in found.required]
    print(f"\nNeeds {', '.join(found.required)}" + (f"; also takes {', '.join(optional)}." if optional else "."))


def _show(entries: Any, n: Any, *, curve: bool) -> None:
    if not isinstance(entries, list):
        print(f"{entries:.12g}")
        return
    generations = n if isinstance(n, list) else range(1, len(entries) + 1)
    for generation, entry in zip(generations, entries, strict=True):
        print(f"{generation:>8}  {entry:.12g}" if curve else f"{entry:.12g}")


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise UserError(f"{text!r} is not NAME=VALUE.", hint="Type, for example: d=10 T=100 n=10, or by generation T=60,20,40")
    return name.strip(), _parse(value.strip())


def _parse(text: str) -> Any:
    """A number, a list (`[60, 20]` or `60,20`), a matrix (`[[1, 0], [0, 2]]`), or else the text itself."""
    for candidate in (text, f"[{text}]") if "," in text else (text,):
        try:
            value = json.loads(candidate)
        except ValueError:
            continue
        if not isinstance(value, bool | dict | None):
            return value
    try:
        return float(text)
    except ValueError:
        return text

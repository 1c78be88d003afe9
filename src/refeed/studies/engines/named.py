"""Engines by name, as the command line chooses them: `--engine NAME --set NAME.option=value`."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from refeed import catalogue
from refeed.core.errors import MissingExtra, StudyError
from refeed.studies.engines.base import Engine
from refeed.studies.tables import assign, parse_override


def build_engine(name: str | None, overrides: Sequence[str], *, workers: int | None = None) -> tuple[Engine, list[str]]:
    """The engine of that name with its options, and the overrides that are left for the study.

    Where no name is given, it is `inline`, or `process` for more than one worker.
    """
    known = catalogue.engines()
    options: dict[str, Any] = {}
    rest = []
    for text in overrides:
        key = text.partition("=")[0].strip()
        if "." in key and key.partition(".")[0] in known:
            assign(options, *parse_override(text))
        else:
            rest.append(text)
    name = name or ("process" if (workers or 1) > 1 else next(iter(options), "inline"))
    make = catalogue.load(catalogue.look_up(name, known, "engine"))
    for other in options:
        if other != name:
            message = f"--set {other}... is for the engine {other}, but the engine is {name}."
            raise StudyError(message, hint=f"Type: --engine {other}, or drop the option.")
    chosen = dict(options.get(name, {}))
    takes = catalogue.option_names(make)
    if workers is not None and "workers" in takes:
        chosen.setdefault("workers", workers)
    elif (workers or 1) > 1:
        message = f"--engine {name} takes no number of workers, so --workers {workers} would be ignored."
        raise StudyError(message, hint="Drop one of the two.")
    missing = [module for module in getattr(make, "requires", ()) if importlib.util.find_spec(module) is None]
    if missing:
        extra = getattr(make, "extra", None)
        raise MissingExtra(
            f"engine {name!r} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed.",
            hint=f"Type: pip install 'refeed[{extra}]'" if extra else f"Type: pip install {' '.join(missing)}",
        )
    return make(**catalogue.check_options(make, chosen, f"engine {name!r}", where=name)), rest

"""`refeed check`: run the public conformance laws on a policy, built-in or your own."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated

import typer

from refeed.cli.options import Json


def check(
    policy: Annotated[str, typer.Argument(help="A policy's name, or module:object for one of your own.")],
    json_output: Json = False,
) -> None:
    """Check that a policy keeps every conformance law; exit 1 if one is broken."""
    from refeed import catalogue
    from refeed.conformance import POLICY_LAWS, check_policy
    from refeed.core.errors import StudyError

    if ":" in policy:
        sys.path.insert(0, os.getcwd())
        try:
            found = catalogue.load(policy)
        except (ImportError, AttributeError) as error:
            raise StudyError(f"cannot import {policy!r}: {error}.", hint="Name it as module:object.") from None
        chosen = found() if (callable(found) and not hasattr(found, "amount")) or isinstance(found, type) else found
    else:
        chosen = catalogue.build(policy, catalogue.policies(), "policy")
    results = check_policy(chosen)
    about = {law.__name__: (law.__doc__ or "").strip().partition("\n")[0] for law in POLICY_LAWS}
    if json_output:
        print(json.dumps(results))
    else:
        for name, broken in results.items():
            print(f"{'broken' if broken else 'holds '}  {about[name]}" + (f"\n        {broken}" if broken else ""))
    if any(results.values()):
        raise typer.Exit(1)

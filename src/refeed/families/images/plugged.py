"""What a user plugs into the images family by name: `module:callable`."""

from __future__ import annotations

import importlib
from typing import Any

from refeed.core.errors import StudyError


def imported(target: str, what: str) -> Any:
    """The callable at `module:callable`."""
    module, _, name = target.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise StudyError(f"{what}, {target!r}, cannot be imported: {error}", hint="Write it as module:callable.") from None

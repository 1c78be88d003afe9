"""Stories as text, for people to read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from refeed.core.rows import Rows
from refeed.families.language.source import LanguageWorld, stories_of
from refeed.families.language.vocabulary import load, readable


def stories(rows: Rows, *, world: LanguageWorld, count: int) -> list[str]:
    """The first `count` rows as text; one that did not reach its end closes with an ellipsis."""
    shown = []
    for tokens in stories_of(rows.take(np.arange(min(count, len(rows))))):
        text = world.tokenizer.decode(tokens)
        ended = len(tokens) > 0 and tokens[-1] == world.tokenizer.end
        shown.append((readable(text) if world.grammar is not None else text) + ("" if ended else " ..."))
    return shown


def decode(rows: Rows, *, folder: Path) -> dict[str, list[str]]:
    """The exact text of every row, by the tokenizer that was kept with the real data in `folder`."""
    tokenizer = load(folder)
    return {"text": [tokenizer.decode(tokens) for tokens in stories_of(rows)]}

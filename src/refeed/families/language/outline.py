"""A text by its size alone: so that a study can be planned where the text is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from refeed.core.errors import StudyError
from refeed.core.protocols import World
from refeed.core.seeds import Seed


@dataclass(frozen=True, kw_only=True)
class Outline:
    """The size of a text that is elsewhere: `rows` stories of `row_tokens` tokens each, `test_rows` more, a vocabulary of so many
    tokens. It serves `refeed plan` and cannot be run.

    The values given here are those of TinyStories as the paper trained on it: 2,119,719 stories, 470M tokens, 8000 different ones.
    """

    rows: int = 2_119_719
    row_tokens: float = 470e6 / 2_119_719
    test_rows: int = 21_990
    vocabulary: int = 8000
    rebuilds: ClassVar[bool] = False
    random: ClassVar[bool] = False
    version: ClassVar[int] = 1
    only_planned: ClassVar[str] = "the source 'outline' is the size of a text and no text: it can be planned, not run."

    def __post_init__(self) -> None:
        for name in ("rows", "row_tokens", "test_rows", "vocabulary"):
            if not getattr(self, name) >= 1:
                raise StudyError(f"source.{name} must be at least 1, not {getattr(self, name)}")

    @property
    def num_rows(self) -> int:
        return self.rows

    def draw(self, *, seed: Seed) -> World:
        raise StudyError(self.only_planned, hint="Name a text, with --set source.kind=text --set source.path=stories.txt")

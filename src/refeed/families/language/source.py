"""Where real stories come from: the story grammar, whose distribution is known, and the user's own text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from refeed.core.errors import SourceError, StudyError
from refeed.core.protocols import World
from refeed.core.rows import Ragged, Rows
from refeed.core.seeds import Seed
from refeed.families.language import corpus, pretrained, reading, vocabulary
from refeed.families.language.grammar import Grammar, grammar
from refeed.families.language.lexicon import WORDS
from refeed.families.language.vocabulary import Tokenizer, WordTokenizer


@dataclass(frozen=True, eq=False, kw_only=True)
class LanguageWorld(World):
    """Real stories, one column `tokens` each; what turns them into text; and their true distribution, where it is known."""

    tokenizer: Tokenizer
    grammar: Grammar | None = None
    scores: ClassVar[tuple[str, ...]] = (*World.scores, "log_prob", "length", "grammar")

    def score(self, name: str, rows: Rows, *, model: Any) -> np.ndarray:
        """`log_prob`: nats a token by the model that wrote them, its own confidence; `grammar`: by the grammar; `length`."""
        stories = stories_of(rows)
        if name == "length":
            return stories.lengths.astype(float)
        if name == "grammar" and self.grammar is not None:
            return np.asarray(self.grammar.log_prob(stories)) / np.maximum(stories.lengths, 1)
        if name == "log_prob":
            return np.asarray(model.log_prob(stories)) / np.maximum(stories.lengths, 1)
        return super().score(name, rows, model=model)

    def save_extras(self, folder: Path) -> None:
        """What `source.load` needs beyond the rows."""
        vocabulary.save(self.tokenizer, folder)


def stories_of(rows: Rows) -> Ragged:
    """The token column of rows."""
    tokens: Ragged = rows["tokens"]
    return tokens


@dataclass(frozen=True, kw_only=True)
class StoryGrammar:
    """Stories of 23 to 75 words from a stochastic grammar, with exact probabilities. Every lineage draws its own.

    `zipf` shapes word choice: a class's word of rank r has a probability proportional to r^-zipf; 0 makes words equally likely.
    `sentences` is the most that may follow the two of the opening.
    """

    rows: int = 800
    test_rows: int = 1000
    zipf: float = 1.0
    sentences: int = 8
    rebuilds: ClassVar[bool] = False
    random: ClassVar[bool] = True
    knows: ClassVar[frozenset[str]] = frozenset({"grammar"})
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name in ("rows", "test_rows", "sentences"):
            if getattr(self, name) < 1:
                raise StudyError(f"source.{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.zipf <= 10:
            raise StudyError(f"source.zipf must be between 0 and 10, not {self.zipf}")

    @property
    def num_rows(self) -> int:
        return self.rows

    @property
    def row_tokens(self) -> float:
        """Expected tokens of a story, the end among them: exact, for plans."""
        return grammar(zipf=self.zipf, sentences=self.sentences).mean_tokens

    @property
    def vocabulary(self) -> int:
        return len(WORDS)

    def given_tokenizer(self) -> Tokenizer:
        """The tokenizer, which is known before a story is drawn."""
        return WordTokenizer(WORDS)

    def draw(self, *, seed: Seed) -> LanguageWorld:
        known = grammar(zipf=self.zipf, sentences=self.sentences)
        train = known.sample(self.rows, (seed / "train").generator())
        test = known.sample(self.test_rows, (seed / "test").generator())
        return self._world(Rows(tokens=train), Rows(tokens=test))

    def load(self, folder: Path, *, train: Rows, test: Rows) -> LanguageWorld:
        return self._world(train, test)

    def _world(self, train: Rows, test: Rows) -> LanguageWorld:
        known = grammar(zipf=self.zipf, sentences=self.sentences)
        return LanguageWorld(train=train, test=test, tokenizer=self.given_tokenizer(), grammar=known)


@dataclass(frozen=True, kw_only=True)
class Text:
    """Stories from the user's own files, split into train and test; every lineage shares them. They are never in memory as a whole.

    `path`: a file, or a folder of Parquet files as on the Hugging Face hub, or one that `datasets` saved. `format`: "tinystories"
    (stories separated by `<|endoftext|>`, that data set's own format), "separated" (by `separator`), "lines" (one story a line),
    "jsonl", "parquet" or "arrow" (a text `column`), or "auto": by suffix; else "separated" where `separator` is set; else
    "tinystories" where its separator occurs; else "lines". What it came to is `.detected`. A tinystories file that does not end
    with its separator was cut off: the tail is dropped, and counted in `.num_dropped`.

    `test_fraction` of the *distinct* stories are held out, chosen by a hash of the story: a story never lies on both sides, and the
    split does not depend on order. Or all stories of `test_path` are, and those that occur there are left out of training.
    `fraction` keeps that share of the training stories, `rows` and `test_rows` only so many, the first in the file. `vocabulary` is
    the size of a byte-level BPE learnt from the training rows alone; or `tokenizer`, a folder or a hub name, gives another.
    `origin` says what the stories are, "real" or "synthetic", where the file does not say it by a column `refeed_real`; see
    `origins`. The source's identity is the files' content, not their path.
    """

    path: str = ""
    test_path: str = ""
    format: str = "auto"
    separator: str = ""
    column: str = "text"
    test_fraction: float = 0.1
    fraction: float = 1.0
    rows: int | None = None
    test_rows: int | None = None
    vocabulary: int = 1024
    tokenizer: str = ""
    origin: str = "unknown"
    rebuilds: ClassVar[bool] = False
    random: ClassVar[bool] = False
    knows: ClassVar[frozenset[str]] = frozenset()
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0 < self.test_fraction < 1:
            raise StudyError(f"source.test_fraction must lie between 0 and 1, not be {self.test_fraction}")
        if not 0 < self.fraction <= 1:
            raise StudyError(f"source.fraction must be more than 0 and at most 1, not {self.fraction}")
        for name in ("rows", "test_rows"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise StudyError(f"source.{name} must be at least 1, not {value}")
        if self.format not in ("auto", *reading.FORMATS):
            raise StudyError(f"source.format must be one of auto, {', '.join(reading.FORMATS)}, not {self.format!r}")
        if self.origin not in ("unknown", "real", "synthetic"):
            raise StudyError(f"source.origin must be unknown, real or synthetic, not {self.origin!r}")
        if self.format == "separated" and not self.separator:
            raise StudyError("source.format = 'separated' needs source.separator, the text that stands between stories")
        vocabulary.check_size(self.vocabulary)

    @property
    def detected(self) -> str:
        """The format that the file was read as."""
        return self._survey().reading.format

    @property
    def num_dropped(self) -> int:
        """Stories cut off by the end of a tinystories file, or empty, and left out."""
        return self._survey().num_dropped

    @property
    def origins(self) -> dict[str, int]:
        """How many stories of the file are real, synthetic or of unknown origin, as its column `refeed_real` says.

        `origin` speaks for the stories of which the file says nothing. It changes no result: all given stories play the part of
        real ones in the loop. It is recorded, and said wherever provenance is.
        """
        origins = dict(self._survey().origins)
        if self.origin != "unknown":
            origins[self.origin] += origins["unknown"]
            origins["unknown"] = 0
        return {name: count for name, count in origins.items() if count}

    @property
    def num_rows(self) -> int:
        return len(self._split().train)

    def identity(self) -> dict[str, object]:
        found = self._survey()
        fields: dict[str, object] = {
            "content": found.content,
            "format": found.reading.format,
            "separator": found.reading.separator,
            "column": found.reading.column,
            "test_fraction": self.test_fraction,
            "rows": self.rows,
            "test_rows": self.test_rows,
            "vocabulary": self.vocabulary,
        }
        if self.test_path:
            fields |= {"test_content": self._survey(self.test_path).content, "test_fraction": None}
        if self.fraction < 1:
            fields["fraction"] = self.fraction
        if self.tokenizer:
            fields |= {"tokenizer": pretrained.tokenizer_digest(self.tokenizer), "vocabulary": None}
        return fields

    def given_tokenizer(self) -> Tokenizer | None:
        """The tokenizer that was named; None where one is to be learnt from the stories."""
        name = self.tokenizer
        return vocabulary.given(*pretrained.tokenizer_files(name), name=name) if name else None

    def draw(self, *, seed: Seed) -> LanguageWorld:
        given = self.given_tokenizer()
        train, test, tokenizer = corpus.tokens(self._survey(), self._split(), tokenizer=given, size=self.vocabulary)
        rows = Rows(tokens=train)
        if np.ptp(self._survey().said):  # a file that says different things of its stories: story by story
            rows = rows.with_columns(refeed_given=self._survey().said[self._split().train])
        return LanguageWorld(train=rows, test=Rows(tokens=test), tokenizer=tokenizer)

    def load(self, folder: Path, *, train: Rows, test: Rows) -> LanguageWorld:
        return LanguageWorld(train=train, test=test, tokenizer=vocabulary.load(folder))

    def _survey(self, path: str = "") -> corpus.Survey:
        if not self.path:
            raise SourceError("source.path is not set", hint="Name the file of stories: --set source.path=stories.txt")
        return corpus.survey(path or self.path, format=self.format, separator=self.separator, column=self.column)

    def _split(self) -> corpus.Split:
        found = self._survey()
        if self.test_path:
            whole = corpus.split_by_file(found, self._survey(self.test_path))
        else:
            whole = corpus.split(found, test_fraction=self.test_fraction)
        if not len(whole.train):
            raise SourceError(
                f"every story of {self.path} occurs in {self.test_path} too, so that none is left to train on",
                hint="Name another file as source.test_path, or leave it out: a tenth of the stories is then held out.",
            )
        num_train = max(1, round(self.fraction * len(whole.train)))
        if num_train < (self.rows or 1):
            raise SourceError(
                f"{self.path} has {num_train} training stories, fewer than source.rows = {self.rows}",
                hint=f"Leave source.rows out, or type: --set source.rows={num_train}",
            )
        if self.test_rows is not None and len(whole.test) < self.test_rows:
            raise SourceError(
                f"{self.path} has {len(whole.test)} test stories, fewer than source.test_rows = {self.test_rows}",
                hint="Leave source.test_rows out, or raise source.test_fraction.",
            )
        return corpus.Split(whole.train[: self.rows or num_train], whole.test[: self.test_rows], whole.held)

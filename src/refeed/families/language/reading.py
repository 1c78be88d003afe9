"""Files of stories, in the formats people have, read one story after the other in bounded memory."""

from __future__ import annotations

import codecs
import io
import json
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from refeed.core import progress
from refeed.core.errors import SourceError
from refeed.families.language.lexicon import END

FORMATS = ("tinystories", "separated", "lines", "jsonl", "parquet", "arrow")
TABLES = ("parquet", "arrow")
REAL = "refeed_real"
BLOCK = 2**22
LONGEST = 2**28  # characters without a separator
_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_SET_SEPARATOR = "Say how its stories are separated: --set source.separator=... or source.format=" + "|".join(FORMATS[:-1])


@dataclass
class Reading:
    """One pass over the files that `path` names: iterate it for (story, what the file says of its being real).

    A story is stripped of blanks around it, empty ones are left out. `num_dropped` counts those, and the tail of a tinystories file
    that its end cut off; `num_pieces` everything.
    """

    path: str
    files: tuple[Path, ...]
    format: str
    separator: str
    column: str
    num_dropped: int = 0
    num_stories: int = 0

    def __iter__(self) -> Iterator[tuple[str, object]]:
        self.num_dropped = self.num_stories = 0
        for file in self.files:
            for piece, real in self._pieces(file):
                if story := piece.strip():
                    self.num_stories += 1
                    yield story, real
                elif self.format in ("jsonl", *TABLES):
                    self.num_dropped += 1

    def _pieces(self, file: Path) -> Iterator[tuple[str, object]]:
        try:
            if self.format in TABLES:
                yield from _table(file, self.path, self.column, arrow=self.format == "arrow")
            elif self.format == "jsonl":
                yield from _jsonl(_split(_text(file, self.path), "\n", self.path), self.path, self.column)
            else:
                separator = {"lines": "\n", "separated": self.separator}.get(self.format, END)
                yield from self._separated(_split(_text(file, self.path), separator, self.path))
        except OSError as error:
            raise SourceError(f"{self.path} cannot be read: {error.strerror or error}") from None

    def _separated(self, pieces: Iterator[str]) -> Iterator[tuple[str, object]]:
        held = next(pieces, None)
        for piece in pieces:
            assert held is not None
            yield held, None
            held = piece
        if held is not None and self.format == "tinystories":
            self.num_dropped += bool(held.strip())  # no separator after it: the file ends inside the story
        elif held is not None:
            yield held, None


def reading(path: str, *, format: str, separator: str, column: str) -> Reading:
    """How the stories of a file or folder are to be read; looks at its first bytes alone."""
    place = Path(path).expanduser()
    try:
        files, detected = _files(place, path)
        if not sum(file.stat().st_size for file in files):
            raise SourceError(f"{path} is empty", hint="It must hold at least two stories.")
        if format == "auto":
            format = detected or _detect(files[0], separator)
    except FileNotFoundError:
        raise SourceError(
            f"there is no file {path}", hint=f"source.path is looked up from the current folder, {Path.cwd()}."
        ) from None
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from None
    return Reading(path, files, format, separator if format == "separated" else "", column if format in ("jsonl", *TABLES) else "")


def content_of(files: Iterable[Path]) -> str:
    """The SHA-256 of a file's bytes; of several files, that of theirs one after the other."""
    digests = []
    for path in files:
        with path.open("rb") as file:
            content = sha256()
            while block := file.read(BLOCK):
                content.update(block)
        digests.append(content.hexdigest())
    return digests[0] if len(digests) == 1 else sha256("".join(digests).encode()).hexdigest()


def _files(place: Path, path: str) -> tuple[tuple[Path, ...], str]:
    """The files that hold the training stories, and their format where the folder says it."""
    if not place.is_dir():
        place.stat()
        return (place,), ""
    if (place / "dataset_dict.json").is_file() and (place / "train").is_dir():
        place = place / "train"
    if (place / "state.json").is_file():  # what datasets' save_to_disk wrote
        state = json.loads((place / "state.json").read_text())
        if state.get("_indices_files"):
            raise SourceError(f"{path} was saved with a selection of rows.", hint="Call flatten_indices() before save_to_disk().")
        return tuple(place / file["filename"] for file in state["_data_files"]), "arrow"
    found = sorted(place.rglob("*.parquet"))
    files = (
        [file for file in found if file.name.startswith("train")]
        or [file for file in found if file.parent.name == "train"]
        or found
    )
    if not files:
        raise SourceError(f"{path} is a folder without Parquet files", hint="Name one file in it as source.path.")
    return tuple(files), "parquet"


def _detect(file: Path, separator: str) -> str:
    if (suffix := file.suffix.lower()) in _SUFFIXES:
        return _SUFFIXES[suffix]
    with file.open("rb") as opened:
        head = opened.read(BLOCK)
    if head.startswith(b"PAR1"):
        return "parquet"
    if separator:
        return "separated"
    if END.encode() in head:
        return "tinystories"
    if b"\n\n" in head.replace(b"\r", b"").strip():
        warnings.warn(
            f"{file} holds no {END}: each of its lines is taken for a story, though blank lines part them. Type --set "
            "source.format=lines if that is meant, or, if blank lines part the stories: --set 'source.separator=\"\\n\\n\"'",
            stacklevel=2,
        )
    return "lines"


def _text(file: Path, path: str) -> Iterator[str]:
    """UTF-8 text block by block, with or without a byte order mark, its line ends as \\n."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines = io.IncrementalNewlineDecoder(None, translate=True)
    size, done = file.stat().st_size, 0
    with file.open("rb") as opened:
        while block := opened.read(BLOCK):
            if not done:
                if block[:2] in (b"\xff\xfe", b"\xfe\xff"):
                    raise SourceError(
                        f"{path} is UTF-16, not UTF-8", hint=f"Convert it: iconv -f UTF-16 -t UTF-8 {path} > utf8.txt"
                    )
                done = len(codecs.BOM_UTF8) if block.startswith(codecs.BOM_UTF8) else 0
                block = block[done:]
            if (zero := block.find(b"\0")) >= 0:
                raise SourceError(
                    f"{path} is a binary file, not text: byte {done + zero} is zero",
                    hint="Text, .jsonl and .parquet files are read; unpack an archive first.",
                )
            pending = len(decoder.getstate()[0])
            final = opened.tell() >= size
            try:
                text = decoder.decode(block, final)
            except UnicodeDecodeError as error:
                raise SourceError(
                    f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {done - pending + error.start}",
                    hint=f"Convert it, if it is Latin-1: iconv -f LATIN1 -t UTF-8 {path} > utf8.txt",
                ) from None
            done = opened.tell()
            yield lines.decode(text, final)
            progress.tick(done, size, "bytes")


def _split(blocks: Iterable[str], separator: str, path: str) -> Iterator[str]:
    """What stands between separators, in blocks of text that may cut a separator."""
    rest = ""
    for block in blocks:
        *whole, rest = (rest + block).split(separator)
        yield from whole
        if len(rest) > LONGEST:
            raise SourceError(f"{path} has {len(rest):,} characters without a separator between stories", hint=_SET_SEPARATOR)
    yield rest


def _jsonl(lines: Iterable[str], path: str, column: str) -> Iterator[tuple[str, object]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise SourceError(f"{path}, line {number}, is not JSON: {error.msg}") from None
        if not isinstance(record, dict):
            raise SourceError(f"{path}, line {number}, is {type(record).__name__}, not an object with {column!r}")
        yield _value(record, path, column, where=f"line {number}"), record.get(REAL)


def _table(file: Path, path: str, column: str, *, arrow: bool) -> Iterator[tuple[str, object]]:
    """The rows of a Parquet file, or of an Arrow stream as `datasets` keeps them, a few thousand at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    batches: Any
    try:
        if arrow:
            batches = pa.ipc.open_stream(pa.memory_map(str(file)))
            names = batches.schema.names
        else:
            opened = pq.ParquetFile(file)
            names = opened.schema_arrow.names
            wanted = [column, REAL] if REAL in names else [column]
            batches = opened.iter_batches(batch_size=4096, columns=wanted) if column in names else ()
        if column not in names:
            raise SourceError(_no_column(path, column, names, where="its schema"), hint=_set_column(names))
        row = 0
        for batch in batches:
            said = batch.column(REAL).to_pylist() if REAL in names else [None] * len(batch)
            for value, real in zip(batch.column(column).to_pylist(), said, strict=True):
                yield _value({column: value}, path, column, where=f"row {row}"), real
                row += 1
            progress.tick(row, row if arrow else opened.metadata.num_rows, "rows")
    except (pa.ArrowException, OSError) as error:
        kind = "an Arrow stream" if arrow else "a Parquet file"
        raise SourceError(f"{path} is not {kind} that can be read: {str(error).splitlines()[0]}") from None


def _value(record: dict[str, object], path: str, column: str, *, where: str) -> str:
    if column not in record:
        raise SourceError(_no_column(path, column, list(record), where=where), hint=_set_column(list(record)))
    value = record[column]
    if not isinstance(value, str):
        raise SourceError(f"{path}, {where}: column {column!r} holds {type(value).__name__}, not text")
    return value


def _no_column(path: str, column: str, names: list[str], *, where: str) -> str:
    return f"{path} has no column {column!r} in {where}; there are: {', '.join(names) or 'none'}"


def _set_column(names: list[str]) -> str:
    return f"Name the column of stories: --set source.column={names[0] if names else 'NAME'}"


def too_few(reading: Reading) -> SourceError:
    """The error for a file of less than two stories."""
    if not (reading.num_stories or reading.num_dropped or reading.format in TABLES):
        return SourceError(f"{reading.path} is empty", hint="It must hold at least two stories.")
    found = "no story" if not reading.num_stories else "one story"
    return SourceError(
        f"{reading.path}, read as format {reading.format!r}, holds {found}; a train and a test part need at least two",
        hint=_SET_SEPARATOR,
    )

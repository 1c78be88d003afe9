"""Files of stories, in the formats people have, as lists of strings; and their split into train and test."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b, sha256
from pathlib import Path

from refeed.core.errors import SourceError
from refeed.families.language.lexicon import END

FORMATS = ("tinystories", "separated", "lines", "jsonl", "parquet")
REAL = "refeed_real"
_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}


@dataclass(frozen=True, eq=False)
class TextFile:
    """A file of stories as read: what it holds, as which format, and the digest of its bytes."""

    path: str
    stories: tuple[str, ...]
    format: str
    sha256: str
    num_dropped: int  # empty stories, and the tail of a tinystories file that its end cut off
    origins: dict[str, int]  # how many stories the file says are real or synthetic, by its column refeed_real; else unknown


def read(path: str, *, format: str, separator: str, column: str) -> TextFile:
    """The stories of a file, stripped of surrounding blanks; remembered until the file changes."""
    file = Path(path)
    try:
        if (exported := file / "data" / "train-00000-of-00001.parquet").is_file():
            file = exported  # a training set that refeed wrote
        if file.is_dir():
            raise SourceError(f"{path} is a folder, not a file of stories", hint="Name one file in it as source.path.")
        status = file.stat()
    except FileNotFoundError:
        raise SourceError(
            f"there is no file {path}", hint=f"source.path is looked up from the current folder, {Path.cwd()}."
        ) from None
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from None
    return _read(str(file.resolve()), status.st_size, status.st_mtime_ns, path, format, separator, column)


@lru_cache(maxsize=4)
def _read(real: str, size: int, modified: int, path: str, format: str, separator: str, column: str) -> TextFile:
    try:
        data = Path(real).read_bytes()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from None
    if not data.strip():
        raise SourceError(f"{path} is empty", hint="It must hold at least two stories.")
    if format == "auto":
        format = _detect(path, data, separator)
    said: list[object] = []
    if format == "parquet":
        pieces, said = _parquet(real, path, column)
    elif format == "jsonl":
        pieces, said = _jsonl(_decode(path, data), path, column)
    else:
        text = _decode(path, data)
        pieces = text.split("\n") if format == "lines" else text.split(separator if format == "separated" else END)
    num_dropped = 0
    if format == "tinystories" and pieces[-1].strip():
        pieces, num_dropped = pieces[:-1], 1  # no separator after it: the file ends inside the story
    stories = tuple(story for piece in pieces if (story := piece.strip()))
    if format in ("jsonl", "parquet"):
        num_dropped = len(pieces) - len(stories)
    if len(stories) < 2:
        raise SourceError(
            f"{path}, read as format {format!r}, holds {_count(len(stories))}; a train and a test part need at least two",
            hint="Say how its stories are separated: --set source.separator=... or source.format=" + "|".join(FORMATS),
        )
    said = said or [None] * len(pieces)
    known = [real for piece, real in zip(pieces, said, strict=True) if piece.strip()]
    origins = {"real": sum(real is True for real in known), "synthetic": sum(real is False for real in known)}
    origins["unknown"] = len(stories) - sum(origins.values())
    return TextFile(path, stories, format, sha256(data).hexdigest(), num_dropped, origins)


def _detect(path: str, data: bytes, separator: str) -> str:
    if (suffix := Path(path).suffix.lower()) in _SUFFIXES:
        return _SUFFIXES[suffix]
    if data.startswith(b"PAR1"):
        return "parquet"
    if separator:
        return "separated"
    return "tinystories" if END.encode() in data else "lines"


def _decode(path: str, data: bytes) -> str:
    """UTF-8 text, with or without a byte order mark, its line ends as \\n."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise SourceError(f"{path} is UTF-16, not UTF-8", hint=f"Convert it: iconv -f UTF-16 -t UTF-8 {path} > utf8.txt")
    if (zero := data.find(b"\0")) >= 0:
        raise SourceError(
            f"{path} is a binary file, not text: byte {zero} is zero",
            hint="Text, .jsonl and .parquet files are read; unpack an archive first.",
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{path} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}",
            hint=f"Convert it, if it is Latin-1: iconv -f LATIN1 -t UTF-8 {path} > utf8.txt",
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _jsonl(text: str, path: str, column: str) -> tuple[list[str], list[object]]:
    stories: list[str] = []
    said: list[object] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise SourceError(f"{path}, line {number}, is not JSON: {error.msg}") from None
        if not isinstance(record, dict):
            raise SourceError(f"{path}, line {number}, is {type(record).__name__}, not an object with {column!r}")
        stories.append(_text(record, path, column, where=f"line {number}"))
        said.append(record.get(REAL))
    return stories, said


def _parquet(real: str, path: str, column: str) -> tuple[list[str], list[object]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(real)
        names = file.schema_arrow.names
        wanted = [column, REAL] if REAL in names else [column]
        table = file.read(columns=wanted) if column in names else None
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path} is not a Parquet file that can be read: {str(error).splitlines()[0]}") from None
    if table is None:
        raise SourceError(_no_column(path, column, names, where="its schema"), hint=_set_column(names))
    values = table.column(column).to_pylist()
    said = table.column(REAL).to_pylist() if REAL in names else []
    return [_text({column: value}, path, column, where=f"row {row}") for row, value in enumerate(values)], said


def _text(record: dict[str, object], path: str, column: str, *, where: str) -> str:
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


def _count(number: int) -> str:
    return "no story" if not number else "one story"


@lru_cache(maxsize=4)
def split(file: TextFile, *, test_fraction: float) -> tuple[list[str], list[str]]:
    """Train and test stories, each in file order. All copies of a story lie on one side.

    The round(test_fraction x distinct) distinct stories with the smallest hashes are held out, at least one.
    """

    def digest(story: str) -> bytes:
        return blake2b(story.encode(), digest_size=16, person=b"refeed.split").digest()

    distinct = sorted({digest(story) for story in file.stories})
    num_test = max(1, round(test_fraction * len(distinct)))
    if len(distinct) - num_test < 1:
        raise SourceError(
            f"{file.path} has {len(distinct)} distinct stories in {len(file.stories)}: too few to hold out {num_test} of them",
            hint="Give more stories, or a smaller source.test_fraction.",
        )
    held_out = set(distinct[:num_test])
    train: list[str] = []
    test: list[str] = []
    for story in file.stories:
        (test if digest(story) in held_out else train).append(story)
    return train, test

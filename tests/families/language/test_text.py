"""The user's own file: every format people have, one clear error for each that cannot be used, and an honest split."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from refeed.core.errors import SourceError, StudyError
from refeed.core.recipes import digest, recipe
from refeed.core.seeds import Seed
from refeed.families.language.source import Text, stories_of

STORIES = [f"Story {n} of Zoë and the {word}.\nIt was good." for n, word in enumerate(["cat", "dog", "bär"] * 10)]
FLAT = [story.replace("\n", " ") for story in STORIES]


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        if isinstance(content, pa.Table):
            pq.write_table(content, path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def texts(source):
    world = source.draw(seed=Seed(0))
    return Counter(world.tokenizer.decode(row) for rows in (world.train, world.test) for row in stories_of(rows))


def test_every_format_gives_the_same_stories(write):
    files = {
        "tinystories": (write("a.txt", "\n" + "".join(f"{s}\n<|endoftext|>\n" for s in STORIES)), {}),
        "separated": (write("b.txt", "\n---\n".join(STORIES)), {"separator": "---"}),
        "jsonl": (write("c.jsonl", "\n".join(json.dumps({"text": s}) for s in STORIES)), {}),
        "parquet": (write("d.parquet", pa.table({"id": range(len(STORIES)), "text": STORIES})), {}),
    }
    for name, (path, options) in files.items():
        source = Text(path=path, **options)
        assert source.detected == name
        assert texts(source) == Counter(STORIES)
    lines = Text(path=write("e.txt", "\n".join(FLAT)))
    assert lines.detected == "lines"
    assert texts(lines) == Counter(FLAT)


def test_windows_line_ends_and_a_byte_order_mark_are_read(write):
    plain, windows = write("a.txt", "\n".join(FLAT)), write("b.txt", b"\xef\xbb\xbf" + "\r\n".join(FLAT).encode())
    assert texts(Text(path=plain)) == texts(Text(path=windows))


def test_a_tail_that_the_end_of_a_tinystories_file_cut_off_is_dropped_and_counted(write):
    whole = "".join(f"{s}\n<|endoftext|>\n" for s in STORIES)
    assert Text(path=write("a.txt", whole)).num_dropped == 0
    cut = Text(path=write("b.txt", whole + "Once upon a ti"))
    with pytest.warns(UserWarning, match=r"b\.txt ends inside a story .* left out"):
        assert cut.num_dropped == 1
    assert texts(cut) == Counter(STORIES)
    assert Text(path=write("c.txt", "---".join([*STORIES, "the end"])), separator="---").num_dropped == 0


def test_that_lines_are_stories_is_said_where_it_is_a_guess(write):
    path = write("a.txt", "\r\n\r\n".join(STORIES))
    with pytest.warns(UserWarning, match=r"each of its lines is taken for a story.*source\.format=lines.*source\.separator"):
        assert Text(path=path).detected == "lines"
    assert texts(Text(path=path, separator="\n\n")) == Counter(STORIES)
    assert Text(path=path, format="lines").detected == "lines"


def test_no_story_lies_on_both_sides_and_order_does_not_matter(write):
    doubled = STORIES + STORIES[::2] + STORIES[:5]
    sources = [Text(path=write(f"{n}.jsonl", "\n".join(json.dumps({"text": s}) for s in order)), test_fraction=0.3)
               for n, order in enumerate((doubled, doubled[::-1]))]  # fmt: skip
    sides = []
    for source in sources:
        world = source.draw(seed=Seed(0))
        train, test = ([world.tokenizer.decode(row) for row in stories_of(rows)] for rows in (world.train, world.test))
        assert not set(train) & set(test)
        assert len(set(test)) == round(0.3 * len(STORIES))
        assert Counter(train + test) == Counter(doubled)
        assert source.num_rows == len(train)
        sides.append(set(test))
    assert sides[0] == sides[1]


def test_rows_caps_both_sides(write):
    source = Text(path=write("a.txt", "\n".join(FLAT)), rows=10, test_rows=2)
    world = source.draw(seed=Seed(0))
    assert (len(world.train), len(world.test), source.num_rows) == (10, 2, 10)


def test_its_identity_is_its_content_and_what_is_done_with_it(write):
    one, two = Text(path=write("a.txt", "\n".join(FLAT))), Text(path=write("b.txt", "\n".join(FLAT)))
    assert digest(one) == digest(two)
    assert "a.txt" not in json.dumps(recipe(one))
    for other in (Text(path=one.path, vocabulary=300), Text(path=one.path, test_fraction=0.2), Text(path=one.path, rows=5)):
        assert digest(other) != digest(one)
    before = digest(one)
    write("a.txt", "\n".join([*FLAT, "One more."]))
    assert digest(Text(path=one.path)) != before


def test_the_tokenizer_learns_from_training_rows_alone(write):
    path = write("a.txt", "\n".join(f"{s} " + f"q{n}zxq{n}zx " * 30 for n, s in enumerate(FLAT)))
    source = Text(path=path, vocabulary=2000)
    world = source.draw(seed=Seed(0))
    held_out = {world.tokenizer.decode(row).split()[1] for row in stories_of(world.test)}
    vocabulary = json.loads(world.tokenizer.to_json())["model"]["vocab"]
    learnt = {token.strip("Ġ") for token in vocabulary if "zxq" in token}
    assert learnt
    assert not any(f"q{number}zxq{number}zx" in token for token in learnt for number in held_out)


def test_text_that_spells_the_end_token_is_text(write):
    path = write("a.jsonl", "\n".join(json.dumps({"text": f"{s} <|endoftext|> more"}) for s in STORIES))
    world = Text(path=path).draw(seed=Seed(0))
    for row in stories_of(world.train):
        assert row[-1] == world.tokenizer.end
        assert world.tokenizer.end not in row[:-1]


def test_bytes_are_counted_and_worlds_load_again(write, tmp_path):
    source = Text(path=write("a.txt", "\n".join(FLAT)), vocabulary=300)
    world = source.draw(seed=Seed(0))
    rows = stories_of(world.train)
    sizes = [len(world.tokenizer.decode(row).encode()) for row in rows]
    assert world.tokenizer.num_bytes(rows).tolist() == sizes
    assert rows.values.dtype == np.uint16
    assert world.tokenizer.size <= 300
    folder = tmp_path / "extras"
    folder.mkdir()
    world.save_extras(folder)
    again = source.load(folder, train=world.train, test=world.test)
    assert again.tokenizer.to_json() == world.tokenizer.to_json()
    assert again.grammar is None


ERRORS = {
    "missing": (None, {}, "there is no file"),
    "empty": (b"  \n", {}, "is empty"),
    "binary": (b"abc\0def", {}, "binary file.*byte 3"),
    "utf-16": ("hello\nworld".encode("utf-16"), {}, "UTF-16"),
    "latin-1": ("één\nZoë\n".encode("latin-1"), {}, "not UTF-8: byte 0xe9 at offset 0"),
    "one row": (b"only one story", {}, "holds one story"),
    "one row, by a separator": (b"a\nb\nc", {"separator": "==="}, "read as format 'separated'.*one story"),
    "no end of text": (b"a\nb\nc", {"format": "tinystories"}, "no story"),
    "copies of one story": (b"same\nsame\nsame", {}, "1 distinct stories in 3"),
    "not json": (b'{"text": "a"}\n{oops', {"format": "jsonl"}, "line 2, is not JSON"),
    "json list": (b"[1]\n[2]", {"format": "jsonl"}, "line 1, is list"),
    "column": (b'{"story": "a", "n": 1}\n{"story": "b"}', {"format": "jsonl"}, "no column 'text' in line 1; there are: story, n"),
    "not text": (b'{"text": 5}\n{"text": 6}', {"format": "jsonl"}, "holds int, not text"),
    "not parquet": (b"PAR1 but not really", {}, "not a Parquet file"),
    "parquet column": (pa.table({"story": ["a", "b"]}), {"format": "parquet"}, "no column 'text' in its schema; there are: story"),
    "parquet null": (pa.table({"text": ["a", None]}), {"format": "parquet"}, "row 1: column 'text' holds NoneType"),
    "too few train": (b"a\nb\nc", {"rows": 50}, "2 training stories, fewer than source.rows = 50"),
    "too few test": (b"a\nb\nc", {"test_rows": 9}, "1 test stories, fewer than source.test_rows = 9"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_file_that_cannot_be_used_gets_one_clear_error(case, write, tmp_path):
    content, options, message = ERRORS[case]
    path = str(tmp_path / "none.txt") if content is None else write("file", content)
    with pytest.raises(SourceError, match=message) as caught:
        _ = Text(path=path, **options).num_rows
    assert caught.value.hint or case in ("not json", "json list", "not text", "parquet null", "not parquet")


def test_a_folder_or_no_path_at_all_is_said(tmp_path):
    with pytest.raises(SourceError, match="is a folder"):
        _ = Text(path=str(tmp_path)).num_rows
    with pytest.raises(SourceError, match=r"source\.path is not set"):
        _ = Text().num_rows
    (tmp_path / "a.txt").write_text("one\ntwo\nthree")
    with pytest.raises(SourceError, match=r"every story of .*a\.txt occurs in .*a\.txt too"):
        _ = Text(path=str(tmp_path / "a.txt"), test_path=str(tmp_path / "a.txt")).num_rows


@pytest.mark.parametrize(
    "wrong",
    [{"test_fraction": 0.0}, {"rows": 0}, {"format": "doc"}, {"format": "separated"}, {"vocabulary": 256}, {"vocabulary": 70000}],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(StudyError, match=next(iter(wrong))):
        Text(path="x", **wrong)


def test_the_real_sample_is_read_unchanged(tinystories):
    source = Text(path=str(tinystories), rows=400, test_rows=150, vocabulary=1024)
    with pytest.warns(UserWarning, match="ends inside a story"):
        assert source.detected == "tinystories"
    assert source.num_dropped == 1
    assert Text(path=str(tinystories)).num_rows == 1727 - 173
    world = source.draw(seed=Seed(0))
    assert world.tokenizer.size == 1024
    assert len(stories_of(world.train).values) > 60_000


def test_nothing_heavy_is_imported_before_it_is_used():
    code = "import sys, refeed.families.language.source, refeed.families.language.learner, refeed.families.language.sampler, "
    code += "refeed.families.language.metrics, refeed.families.language.exhibit; "
    code += "print([m for m in ('torch', 'transformers', 'tokenizers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"

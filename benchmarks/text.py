"""A corpus of some hundred megabytes on its way to the trainer: seconds, rates, bytes on disk, and the memory it takes.

    python benchmarks/text.py --megabytes 300 --vocabulary 8000

Grammar stories in TinyStories' file format; each stage in this process, one after the other. Memory: the most anonymous memory
(RssAnon of /proc/self/status) seen in a stage; pages of mapped files are the kernel's to drop and are not counted.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from refeed.core.loop import Lineage
from refeed.core.seeds import Seed
from refeed.families.language import corpus, vocabulary
from refeed.families.language.grammar import grammar
from refeed.families.language.layout import TrainingText
from refeed.families.language.lexicon import WORDS
from refeed.families.language.source import Text, stories_of
from refeed.policies import replace
from refeed.workspace import Workspace


def write_stories(path: Path, *, num_bytes: int) -> None:
    tokenizer, known = vocabulary.WordTokenizer(WORDS), grammar(zipf=1.0, sentences=8)
    with path.open("w") as file:
        chunk = 0
        while file.tell() < num_bytes:
            stories = known.sample(20_000, (Seed(0) / chunk).generator())
            file.write("".join(f"{vocabulary.readable(tokenizer.decode(story))}\n<|endoftext|>\n" for story in stories))
            chunk += 1


def anonymous() -> float:
    """MiB of memory that belong to this process alone."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1024


@contextmanager
def stage(name: str, unit: str, results: list[str]) -> Iterator[list[float]]:
    """Time a stage and watch its memory; the block appends how many units it did."""
    peak, stop, amount = [anonymous()], threading.Event(), []

    def watch() -> None:
        while not stop.wait(0.02):
            peak[0] = max(peak[0], anonymous())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    wall, cpu = time.perf_counter(), time.process_time()
    yield amount
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    stop.set()
    watcher.join()
    line = f"| {name} | {wall:.1f} | {cpu:.1f} | {sum(amount) / wall:,.0f} {unit}/s | {peak[0]:,.0f} |"
    results.append(line)
    print(line, flush=True)


def size(path: Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=float, default=300)
    parser.add_argument("--vocabulary", type=int, default=8000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place, results = Path(folder), []
        os.environ["REFEED_CACHE"] = str(place / "cache")
        write_stories(place / "stories.txt", num_bytes=int(options.megabytes * 1e6))
        source = Text(path=str(place / "stories.txt"), vocabulary=options.vocabulary, test_fraction=0.01)
        print(f"{size(place / 'stories.txt'):,.0f} MB of text; before the first stage {anonymous():,.0f} MiB")
        print("| stage | wall s | CPU s | rate | most memory, MiB |\n|---|---|---|---|---|")
        with stage("survey: hashes, content, split", "MB", results) as done:
            num_rows = source.num_rows
            done.append(size(place / "stories.txt"))
        found = source._survey()
        with stage("BPE learnt from the training stories", "MB", results) as done:
            maker = vocabulary.SubwordTokenizer.train(corpus.stories(found, source._split().train), size=options.vocabulary)
            done.append(size(place / "stories.txt"))
        with stage("tokens to disk", "tokens", results) as done:
            train, test, _ = corpus.tokens(found, source._split(), tokenizer=maker, size=0)
            num_tokens = len(train.values) + len(test.values)
            done.append(num_tokens)
        draw = Lineage(source=source, learner=None, sampler=None, metrics=(), policy=replace(), seed=Seed(0)).draw  # type: ignore[arg-type]
        with stage("the draw step: all of that again but the survey, and Parquet", "tokens", results) as done:
            Workspace(place / "w").realise(draw)
            done.append(num_tokens)
        with stage("the draw step read by another process: checked, unpacked, mapped", "tokens", results) as done:
            world = Workspace(place / "w").realise(draw)
            done.append(num_tokens)
        with stage("an epoch of batches of 16,384 tokens", "tokens", results) as done:
            text = TrainingText([(stories_of(world.train), 1.0)], context=512, end=world.tokenizer.end)
            steps = text.steps_per_epoch(batch_tokens=16384, batch_stories=None)
            for pieces in text.steps(steps, batch_tokens=16384, batch_stories=None, seed=Seed(0)):
                done += [batch.num_tokens for batch in text.batches(pieces, max_cells=16384)]
        print(f"{num_rows:,} training stories, {num_tokens:,} tokens, vocabulary {world.tokenizer.size}")
        tokens = place / "cache/tokens"
        print(
            f"on disk, MB: tokens {size(tokens) / len(list(tokens.iterdir())):,.0f}, hashes {size(place / 'cache/text'):,.0f}, ",
            end="",
        )
        print(f"Parquet {size(place / 'w/steps'):,.0f}, unpacked Parquet {size(place / 'w/maps'):,.0f}")


if __name__ == "__main__":
    main()

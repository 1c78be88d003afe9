"""Accumulating by reference against plain Parquet and `datasets.concatenate_datasets`: the same rows, interleaved in one process.

python benchmarks/storage.py [--generations 100] [--rows 100000] [--rounds 5] [--write docs/storage.md]
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from refeed import policies
from refeed.core.loop import Lineage, turns
from refeed.core.protocols import World
from refeed.core.rows import Ragged, Rows
from refeed.core.seeds import Seed
from refeed.workspace import Workspace
from refeed.workspace.shards import read_row, shard_file

datasets.disable_progress_bars()


def stories(num_rows: int, seed: int = 0) -> Rows:
    """Rows of 10 to 50 tokens out of 1,000, the frequent ones more often."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(10, 51, size=num_rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = np.minimum(rng.zipf(1.3, size=offsets[-1]), 1000).astype(np.uint16)
    return Rows(tokens=Ragged(values, offsets))


@dataclass(frozen=True, eq=False, kw_only=True)
class StoryWorld(World):
    def save_extras(self, folder: Path) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Stories:
    rows: int
    rebuilds: ClassVar[bool] = False
    random: ClassVar[bool] = True

    @property
    def num_rows(self) -> int:
        return self.rows

    def draw(self, *, seed: Seed) -> StoryWorld:
        return StoryWorld(train=stories(self.rows), test=stories(10))

    def load(self, folder: Path, *, train: Rows, test: Rows) -> StoryWorld:
        return StoryWorld(train=train, test=test)


class Nothing:
    def save(self, folder: Path) -> None:
        (folder / "nothing").write_text("")


@dataclass(frozen=True, kw_only=True)
class NoFit:
    provides: ClassVar[frozenset[str]] = frozenset()

    def fit(self, data: Any, *, world: Any, seed: Seed, start: Any = None) -> Nothing:
        return Nothing()

    def load(self, folder: Path) -> Nothing:
        return Nothing()


@dataclass(frozen=True, kw_only=True)
class Copy:
    """Gives the real rows back, so that every shard is as large and as compressible."""

    def sample(self, model: Any, num_rows: int, *, world: World, seed: Seed) -> Rows:
        return world.train


def timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class Bench:
    """The same rows kept three ways: as shards of a workspace, as plain Parquet files, and as data sets saved to disk."""

    def __init__(self, folder: Path, *, generations: int, rows: int) -> None:
        self.folder, self.num_rows, self.generations = folder, rows, generations
        self.rng = np.random.default_rng(0)
        self.round = 1  # of compaction: each takes another generation, from the end
        self.lineage = Lineage(
            source=Stories(rows=rows), learner=NoFit(), sampler=Copy(), metrics=(), policy=policies.accumulate(), seed=Seed(0)
        )
        self.table = stories(rows).to_arrow()
        store = Workspace(folder / "w")
        world = store.realise(self.lineage.draw)
        self.appends: dict[str, list[float]] = {"refeed": [], "Parquet": [], "datasets": []}
        for turn in turns(self.lineage, generations):
            store.realise(turn.model)
            plain, saved = folder / f"p{turn.generation}.parquet", folder / f"d{turn.generation}"
            self.appends["refeed"].append(timed(lambda turn=turn: store._store(turn.fresh.step, world.train, 0.0)))
            self.appends["Parquet"].append(timed(lambda plain=plain: pq.write_table(self.table, plain, compression="zstd")))
            self.appends["datasets"].append(timed(lambda saved=saved: datasets.Dataset(self.table).save_to_disk(saved)))
        self.files = [folder / f"p{g}.parquet" for g in range(1, generations + 1)]
        self.saved = [folder / f"d{g}" for g in range(1, generations + 1)]
        self.last = list(turns(self.lineage, generations))[-1].train
        self.store = store
        self.joined = datasets.concatenate_datasets([datasets.load_from_disk(path) for path in self.saved])

    # Open ----------------------------------------------------------------------------------------------------------------------

    def open_refeed(self) -> None:
        """The workspace, all its records, and the training set of the last generation."""
        Workspace(self.folder / "w")
        pool = list(turns(self.lineage, self.generations))[-1].train
        assert pool.num_rows == self.generations * self.num_rows

    def open_parquet(self) -> None:
        assert pads.dataset(self.files).count_rows() == self.generations * self.num_rows

    def open_datasets(self) -> None:
        joined = datasets.concatenate_datasets([datasets.load_from_disk(path) for path in self.saved])
        assert len(joined) == self.generations * self.num_rows

    # One random row ------------------------------------------------------------------------------------------------------------

    def row_refeed(self) -> None:
        part = self.last.parts[self.rng.integers(len(self.last.parts))]
        step = part.shard.step
        read_row(shard_file(self.store.folder(step), step.kind), int(self.rng.integers(self.num_rows)))

    def row_parquet(self) -> None:
        """As everyone writes it: read the file, take the row."""
        table = pq.read_table(self.files[self.rng.integers(len(self.files))])
        table.slice(int(self.rng.integers(self.num_rows)), 1).to_pylist()

    def row_datasets(self) -> None:
        _ = self.joined[int(self.rng.integers(len(self.joined)))]

    # As many rows as one generation has, out of all ------------------------------------------------------------------------------

    def sample_refeed(self) -> None:
        """Choose and read, a part at a time, in a workspace just opened, every checksum verified."""
        store = Workspace(self.folder / "w")
        pool = self.last.subsample(self.num_rows, seed=Seed(int(self.rng.integers(2**31))))
        total = 0
        for part in pool:
            rows = store.realise(part.shard.step)
            total += len((rows.train if isinstance(rows, World) else rows).take(part.index))
        assert total == self.num_rows

    def sample_parquet(self) -> None:
        chosen = np.sort(self.rng.choice(len(self.files) * self.num_rows, size=self.num_rows, replace=False))
        assert pads.dataset(self.files).take(pa.array(chosen)).num_rows == self.num_rows

    def sample_datasets(self) -> None:
        chosen = np.sort(self.rng.choice(len(self.joined), size=self.num_rows, replace=False))
        assert self.joined.select(chosen).with_format("arrow")[:].num_rows == self.num_rows

    # Keep one row in ten of a generation, and free the rest --------------------------------------------------------------------

    def _survivors(self) -> np.ndarray:
        return np.sort(self.rng.choice(self.num_rows, size=self.num_rows // 10, replace=False))

    def compact_refeed(self) -> None:
        """Trim a shard: read and verify it, write the rows that are left with their positions, seal and flush."""
        store = Workspace(self.folder / "w")
        step = self.last.parts[-self.round].shard.step
        assert store.trim(step, self._survivors()) > 0

    def compact_parquet(self) -> None:
        path = self.files[-self.round]
        kept = pq.read_table(path).take(pa.array(self._survivors()))
        pq.write_table(kept, f"{path}.new", compression="zstd")
        os.replace(f"{path}.new", path)

    def compact_datasets(self) -> None:
        path = self.saved[-self.round]
        datasets.load_from_disk(path).select(self._survivors()).save_to_disk(f"{path}.new")
        shutil.rmtree(path)
        os.rename(f"{path}.new", path)

    def bytes(self) -> dict[str, int]:
        def size(paths: list[Path]) -> int:
            return sum(f.stat().st_size for p in paths for f in ([p] if p.is_file() else p.rglob("*")) if f.is_file())

        shards = [shard_file(self.store.folder(p.shard.step), p.shard.step.kind) for p in self.last]
        return {"refeed": size(shards), "Parquet": size(self.files), "datasets": size(self.saved)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generations", type=int, default=100)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", type=Path, help="a Markdown file for the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="refeed-storage-") as folder:
        bench = Bench(Path(folder), generations=options.generations, rows=options.rows)
        times: dict[str, dict[str, list[float]]] = {"append a generation": bench.appends}
        for _ in range(options.rounds):
            for title, kind, repeat in (
                ("open all generations", "open", 1),
                ("read one random row", "row", 20),
                ("subsample one generation's worth", "sample", 1),
            ):
                for who in ("refeed", "Parquet", "datasets"):
                    work = getattr(bench, f"{kind}_{who.lower()}")
                    seconds = timed(lambda work=work, repeat=repeat: [work() for _ in range(repeat)]) / repeat
                    times.setdefault(title, {}).setdefault(who, []).append(seconds)
        sizes = bench.bytes()
        for bench.round in range(1, min(options.rounds, options.generations - 1) + 1):
            for who in ("refeed", "Parquet", "datasets"):
                seconds = timed(getattr(bench, f"compact_{who.lower()}"))
                times.setdefault("keep one row in ten of a generation", {}).setdefault(who, []).append(seconds)
        text = page(times, sizes, options)
    print(text)
    if options.write:
        options.write.write_text(text, encoding="utf-8")


def page(times: dict[str, dict[str, list[float]]], sizes: dict[str, int], options: argparse.Namespace) -> str:
    lines = [
        "# Keeping rows by reference: what it costs\n",
        f"{options.generations} generations of {options.rows:,} rows (10 to 50 tokens each), medians of {options.rounds} "
        f"interleaved rounds\nin one process on {platform.machine()}, pyarrow {pa.__version__}, datasets {datasets.__version__}. "
        "Written by `python benchmarks/storage.py --write docs/storage.md`.\n",
        "| | refeed | plain Parquet | datasets | refeed / Parquet | refeed / datasets |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for title, found in times.items():
        ours, plain, theirs = (statistics.median(found[who]) for who in ("refeed", "Parquet", "datasets"))
        cells = " | ".join(f"{1000 * value:,.1f} ms" for value in (ours, plain, theirs))
        lines.append(f"| {title} | {cells} | {ours / plain:.2f} | {ours / theirs:.2f} |")
    ours, plain, theirs = (sizes[who] for who in ("refeed", "Parquet", "datasets"))
    cells = " | ".join(f"{value / 2**20:,.0f} MiB" for value in (ours, plain, theirs))
    lines.append(f"| on disk | {cells} | {ours / plain:.2f} | {ours / theirs:.2f} |")
    lines += [
        "",
        "- **append**: refeed also flushes to disk (fsync), takes a SHA-256 of every file, audits the rows, and writes a manifest.",
        "- **open**: refeed opens the workspace and builds the training set of the last generation: recipes, no rows.",
        "- **random row**: refeed reads one row group (about 1 MiB before compression) and verifies its checksums;",
        "  plain Parquet reads the file; datasets keeps rows uncompressed and memory-mapped, which is faster and larger.",
        "- **keep one in ten**: refeed verifies the shard before, keeps every row's position, and flushes to disk.",
        "- **subsample**: refeed verifies the SHA-256 of every shard it reads and keeps one part at a time in memory.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()

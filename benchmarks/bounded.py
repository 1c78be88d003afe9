"""A reservoir of 1e5 rows over 100 generations of 1e5 rows: the rows and bytes on the disk after every step.

python benchmarks/bounded.py [generations] [rows]
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from refeed import policies
from refeed.studies import run
from refeed.studies.engines import Event
from toy import KeptLinear, kept_study


def main(generations: int, rows: int) -> None:
    study = kept_study(seeds=(0,), generations=generations, names=("replace",))
    case = replace(study.cases[0], source=KeptLinear(rows=rows))
    study = replace(study, cases=(case,), policies={"reservoir": policies.reservoir()}, rows="needed")
    highest, started = 0, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:

        def listener(event: Event) -> None:
            nonlocal highest
            if event.kind == "ended":
                shards = list((Path(folder) / "steps").glob("*/rows.parquet"))
                highest = max(highest, sum(pq.read_metadata(path).num_rows for path in shards))

        run(study, workspace=folder, listener=listener)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    seconds = time.perf_counter() - started
    print(f"{generations} generations of {rows:,} rows, reservoir of {rows:,}: at most {highest:,} synthetic rows on the disk")
    print(f"({highest / rows:.2f} times the bound); {size / 2**20:.1f} MiB in all at the end; {seconds:.0f} s")


if __name__ == "__main__":
    main(*(int(argument) for argument in (*sys.argv[1:], *("100", "100000")[len(sys.argv) - 1 :])))

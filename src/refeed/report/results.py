"""The results of a study as plain data: what a run leaves behind, and all that reports read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from refeed.core.errors import UserError
from refeed.report.statistics import mean_interval

if TYPE_CHECKING:
    import altair as alt

SCHEMAS = {
    "scores": pa.schema(
        {
            "case": pa.string(),
            "policy": pa.string(),
            "seed": pa.int64(),
            "generation": pa.int64(),
            "quantity": pa.string(),
            "value": pa.float64(),
            "unit": pa.string(),
        }
    ),
    "composition": pa.schema(
        {
            "case": pa.string(),
            "policy": pa.string(),
            "seed": pa.int64(),
            "generation": pa.int64(),
            "origin": pa.int64(),
            "rows": pa.int64(),
        }
    ),
    "outcomes": pa.schema(
        {
            "case": pa.string(),
            "policy": pa.string(),
            "seed": pa.int64(),
            "generation": pa.int64(),
            "outcome": pa.string(),
            "sentence": pa.string(),
        }
    ),
    "ledger": pa.schema(
        {
            "case": pa.string(),
            "policy": pa.string(),
            "seed": pa.int64(),
            "generation": pa.int64(),
            "rows": pa.int64(),
            "unique_rows": pa.int64(),
            "real_share": pa.float64(),
            "real_weight": pa.float64(),
            "depth": pa.float64(),
            "effective_rows": pa.float64(),
            "rows_kept": pa.int64(),
            "bytes": pa.int64(),
            "tokens": pa.int64(),
            "prompt_tokens": pa.int64(),
            "real_tokens": pa.int64(),
            "rejected": pa.float64(),
            "repeats": pa.float64(),
            "repeats_real": pa.float64(),
            "ended": pa.float64(),
            "mean_length": pa.float64(),
            "same_rows": pa.int64(),
        }
    ),
}
OPTIONAL = ("ledger",)  # not written by early runs
DOCUMENTS = ("study", "exhibits", "run")


@dataclass(frozen=True, kw_only=True, eq=False)
class Lineages:
    """One quantity of one case and policy: `values` of shape (seeds, generations), NaN where nothing finite was measured."""

    seeds: np.ndarray
    generations: np.ndarray
    values: np.ndarray

    def at(self, generation: int) -> dict[int, float]:
        """The finite values at a generation, by seed."""
        column = np.flatnonzero(self.generations == generation)
        if not column.size:
            return {}
        values = self.values[:, column[0]]
        return {int(seed): float(value) for seed, value in zip(self.seeds, values, strict=True) if np.isfinite(value)}

    @property
    def last(self) -> int:
        """The last generation at which some lineage has a value."""
        return int(self.generations[np.isfinite(self.values).any(axis=0)].max())


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A quantity at one generation over lineages: mean with its 95 % t interval (None for one lineage), and median."""

    case: str
    policy: str
    generation: int
    num_seeds: int
    mean: float
    low: float | None
    high: float | None
    median: float


@dataclass(frozen=True, eq=False)
class Results:
    """A study's question, its numbers, and what happened on the way; in memory, or loaded from a results folder.

    `study`, `exhibits` and `run` are the JSON documents, `scores`, `composition`, `outcomes` and `ledger` the tables of the folder.
    """

    study: dict[str, Any]
    scores: pa.Table
    composition: pa.Table
    outcomes: pa.Table
    exhibits: list[dict[str, Any]] = field(default_factory=list)
    run: dict[str, Any] = field(default_factory=dict)
    ledger: pa.Table | None = None

    def __post_init__(self) -> None:
        for name, schema in SCHEMAS.items():
            table = getattr(self, name)
            if table is None or table.num_rows == 0:
                table = schema.empty_table()
            if name in OPTIONAL:  # early runs have fewer columns
                for column in (column for column in schema.names if column not in table.column_names):
                    table = table.append_column(column, pa.nulls(table.num_rows, schema.field(column).type))
            missing = [column for column in schema.names if column not in table.column_names]
            if missing:
                raise UserError(f"the table {name!r} of these results has no column {', '.join(map(repr, missing))}")
            object.__setattr__(self, name, table.select(schema.names).cast(schema))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Results:
        """The results in `folder`; a UserError that names the file where one is missing or unreadable."""
        parts: dict[str, Any] = {name: _read(Path(folder) / f"{name}.json", _json) for name in DOCUMENTS}
        tables = {name: Path(folder) / f"{name}.parquet" for name in SCHEMAS}
        parts |= {name: _read(path, pq.read_table) for name, path in tables.items() if name not in OPTIONAL or path.exists()}
        return cls(**parts)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the seven files of a results folder, each under a temporary name first, so that none is ever half written."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        for name in DOCUMENTS:
            text = json.dumps(getattr(self, name), indent=1, ensure_ascii=False)
            write_atomically(target / f"{name}.json", text.encode())
        for name in SCHEMAS:
            sink = pa.BufferOutputStream()
            pq.write_table(getattr(self, name), sink, compression="zstd")
            write_atomically(target / f"{name}.parquet", sink.getvalue().to_pybytes())
        return target

    @property
    def cases(self) -> dict[str, dict[str, Any]]:
        return {case["name"]: case for case in self.study["cases"]}

    @property
    def policies(self) -> list[str]:
        return [policy["name"] for policy in self.study["policies"]]

    def quantities(self, case: str) -> dict[str, dict[str, Any]]:
        """What the case measures, by name, the headline first, with every field of a Quantity filled in."""
        plain = {"unit": "1", "better": "lower", "role": "other", "reference": "", "meaning": "", "series": ""}
        described = self.cases[case]
        listed = {q["name"]: plain | q for metric in described.get("metrics", []) for q in metric["quantities"]}
        measured = dict.fromkeys(quantity for name, _, quantity in self._lineages if name == case)
        every = {name: listed.get(name, plain | {"name": name}) for name in [*listed, *measured]}
        headline = self.headline(case)
        return {name: every[name] for name in sorted(every, key=lambda name: name != headline)}

    def headline(self, case: str) -> str:
        """The quantity shown first: the study's choice, else the first one measured."""
        chosen = self.cases[case].get("headline")
        return chosen or next((quantity for name, _, quantity in self._lineages if name == case), "")

    def lineages(self, case: str, policy: str, quantity: str) -> Lineages | None:
        """The values of every lineage, or None where nothing finite was measured."""
        return self._lineages.get((case, policy, quantity))

    def frame(self) -> pa.Table:
        """The scores as a tidy table, one row a number: case, policy, seed, generation, quantity, value, unit."""
        return self.scores

    def summary(self, quantity: str) -> list[Summary]:
        """A quantity by case, policy and generation, over lineages."""
        rows = []
        for (case, policy, name), lineages in self._lineages.items():
            if name != quantity:
                continue
            for generation in lineages.generations:
                values = list(lineages.at(int(generation)).values())
                if not values:
                    continue
                mean = mean_interval(values)
                rows.append(
                    Summary(
                        case=case,
                        policy=policy,
                        generation=int(generation),
                        num_seeds=mean.n,
                        mean=mean.value,
                        low=mean.low,
                        high=mean.high,
                        median=float(np.median(values)),
                    )
                )
        return rows

    def plot(self, quantity: str | None = None, case: str | None = None) -> alt.Chart:
        """Curves by policy against generation, an Altair chart: of one case, or of all cases that measure the quantity."""
        from refeed.report.figures import curves

        case_of = case or next(name for name in self.cases if quantity is None or quantity in self.quantities(name))
        chosen = quantity or self.headline(case_of)
        cases = [case_of] if case else [name for name in self.cases if chosen in self.quantities(name)]
        return curves(self, cases, chosen)

    @cached_property
    def _lineages(self) -> dict[tuple[str, str, str], Lineages]:
        """All finite scores as arrays by (case, policy, quantity), in the order of the study."""
        cells: dict[tuple[str, str, str], dict[tuple[int, int], float]] = {}
        columns = [self.scores[name].to_pylist() for name in SCHEMAS["scores"].names[:-1]]
        for case, policy, seed, generation, quantity, value in zip(*columns, strict=True):
            if value is not None and np.isfinite(value):
                cells.setdefault((case, policy, quantity), {})[seed, generation] = value
        cases, policies = list(self.cases), self.policies

        def place(key: tuple[str, str, str]) -> tuple[int, int]:
            return cases.index(key[0]), policies.index(key[1])

        known = sorted((key for key in cells if key[0] in cases and key[1] in policies), key=place)
        return {key: _array(cells[key]) for key in known}


def _array(cells: dict[tuple[int, int], float]) -> Lineages:
    seeds, row = np.unique([seed for seed, _ in cells], return_inverse=True)
    generations, column = np.unique([generation for _, generation in cells], return_inverse=True)
    values = np.full((len(seeds), len(generations)), np.nan)
    values[row, column] = list(cells.values())
    return Lineages(seeds=seeds, generations=generations, values=values)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _read(path: Path, reader: Callable[[Path], Any]) -> Any:
    try:
        return reader(path)
    except FileNotFoundError as error:
        hint = "Point to the folder that a run printed; it holds study.json, scores.parquet and four more files."
        raise UserError(f"{path.parent} is not a results folder: it has no {path.name}", hint=hint) from error
    except (ValueError, pa.ArrowException, OSError) as error:
        hint = "The file is damaged; run the study again, what is done already is reused."
        raise UserError(f"{path} cannot be read: {error}", hint=hint) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` under a temporary name beside `path` and rename it, so that a reader sees all of it or none."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)

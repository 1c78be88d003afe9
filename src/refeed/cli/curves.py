"""Loss curves for the forecast: out of a finished study, or out of a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refeed.core.errors import UserError

if TYPE_CHECKING:
    import numpy as np

GENERATION = ("generation", "iteration", "n", "step", "round")
SEED = ("seed", "lineage", "run", "replicate")
LOSS = ("loss", "value", "test_loss", "test_ce", "val_loss", "cross_entropy")


def from_csv(path: Path, *, column: str | None, where: Sequence[str]) -> np.ndarray:
    """The curves of a file, one row a seed: columns for the generation, the loss, and the seed if there are several."""
    rows = _filtered(path, where)
    names = list(rows[0])
    generation = next((name for name in names if name.lower() in GENERATION), None)
    if generation is None:
        raise UserError(
            f"{path} has no column for the generation: its columns are {', '.join(names)}.",
            hint="Name one 'generation' (1, 2, 3, ...) and one 'loss'.",
        )
    seed = next((name for name in names if name.lower() in SEED), None)
    if column is None:
        rest = [name for name in names if name not in (generation, seed) and _numeric(rows, name)]
        column = next((name for name in rest if name.lower() in LOSS), rest[0] if len(rest) == 1 else None)
    if column is None or column not in names:
        raise UserError(
            f"{path} has no column {column or 'loss'!r}: its columns are {', '.join(names)}.", hint="Type: --column NAME"
        )
    others = {n: sorted({row[n] for row in rows}) for n in names if n not in (generation, seed, column) and not _numeric(rows, n)}
    mixed = {name: values for name, values in others.items() if len(values) > 1}
    if mixed:
        name, values = next(iter(mixed.items()))
        raise UserError(
            f"{path} holds several curves: {name} is {', '.join(values[:6])}.", hint=f"Type: --where '{name}={values[0]}'"
        )
    curves: dict[str, dict[float, float]] = {}
    for row in rows:
        place = curves.setdefault(row[seed] if seed else "", {})
        number, value = _number(row[generation], path, generation), _number(row[column], path, column)
        if number in place:
            raise UserError(
                f"{path} gives generation {number:g} twice.", hint="Add a column 'seed', or pick one curve with --where."
            )
        place[number] = value
    return _aligned(curves, str(path))


def _filtered(path: Path, where: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
    except FileNotFoundError:
        raise UserError(
            f"there is no file or finished study {path}.", hint="Type: refeed show   (lists the finished studies)"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a readable CSV file: {error}.") from None
    for condition in where:
        name, equals, value = condition.partition("=")
        if not equals or (rows and name not in rows[0]):
            known = ", ".join(rows[0]) if rows else "none"
            raise UserError(f"--where takes COLUMN=VALUE with a column of the file, not {condition!r}.", hint=f"Columns: {known}.")
        rows = [row for row in rows if row[name] == value]
    if not rows:
        raise UserError(f"{path} has no row" + (f" with {' and '.join(where)}." if where else "."))
    return rows


def _numeric(rows: list[dict[str, str]], name: str) -> bool:
    try:
        return all(float(row[name]) is not None for row in rows)
    except (TypeError, ValueError):
        return False


def _number(text: Any, path: Path, column: str) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        raise UserError(f"{path}: column {column!r} holds {text!r}, which is not a number.") from None


def _aligned(curves: dict[str, dict[float, float]], what: str) -> np.ndarray:
    """The generations that every curve has, from the first one on without a gap."""
    import numpy as np

    first = min(min(curve) for curve in curves.values())
    length = 0
    while all(first + length in curve for curve in curves.values()):
        length += 1
    if length < 3:
        raise UserError(f"{what} has {length} generations that every seed has; a forecast needs at least 3.")
    return np.array([[curve[first + g] for g in range(length)] for curve in curves.values()])


def from_study(folder: Path, *, policy: str | None, case: str | None, quantity: str | None) -> np.ndarray:
    """The curves of one policy of a finished study, one row a seed: its headline quantity, or the one asked for."""
    from refeed.report import Results

    results = Results.load(folder)
    case = _one_of(case, list(results.cases), "case")
    policy = _one_of(policy, list(results.policies), "policy")
    chosen = quantity or results.cases[case].get("headline") or next(iter(results.quantities(case)))
    curves: dict[str, dict[float, float]] = {}
    for row in results.scores.to_pylist():
        if (row["case"], row["policy"], row["quantity"]) == (case, policy, chosen):
            curves.setdefault(str(row["seed"]), {})[float(row["generation"])] = row["value"]
    if not curves:
        known = ", ".join(results.quantities(case))
        raise UserError(f"{folder.name} has no {chosen!r} of policy {policy!r}.", hint=f"Quantities: {known}.")
    return _aligned(curves, folder.name)


def _one_of(name: str | None, known: list[str], what: str) -> str:
    if name is None and len(known) == 1:
        return known[0]
    if name not in known:
        said = f"{what} {name!r} is not in the study" if name else f"the study has more than one {what}"
        raise UserError(f"{said}.", hint=f"Type: --{what} '{known[0]}'   ({', '.join(known)})")
    return name

"""What a plan takes, as tables: operations, tokens, bytes, storage by policy, and time on so many devices."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.table import Table

    from refeed.studies.tasks import Plan
    from refeed.workspace import Workspace

DEVICES = (1, 2, 8, 64)
LEFT = ("case", "step", "policy", "stage", "each asks for", "waits for")


def outlook(
    plan: Plan,
    store: Workspace,
    *,
    devices: tuple[int, ...],
    flops: float | None,
    rates: dict[str, dict[str, float]],
    price: float | None,
    graph: bool,
) -> dict[str, Any]:
    """All that `show` prints, as data: seconds, bytes and device-hours."""
    from dataclasses import asdict

    from refeed.studies.costs import critical_path, makespan, needs, storage, task_costs, task_seconds, widths

    costs = task_costs(plan)
    found: dict[str, Any] = {"graph": list(_graph(plan)) if graph else []}
    seconds = task_seconds(plan, store, costs, flops=flops, rates=rates)
    found |= {
        "needs": [asdict(need) for need in needs(plan, costs) if need.cost.flops or need.cost.bytes],
        "storage": [asdict(kept) | {"bytes_made": kept.bytes_made, "bytes_kept": kept.bytes_kept} for kept in storage(plan.study)],
        "seconds": None,
        "rated": bool(flops or rates) or None in costs.values(),  # no rate tells the time of steps whose operations nobody counts
    }
    wide = widths(plan)
    longest, chain = critical_path(plan.pending, seconds or dict.fromkeys(plan.pending, 1.0), wide if seconds else None)
    found["chain"] = _chain(plan, chain)
    if seconds is not None and plan.pending:
        work = sum(seconds.values())
        times = {number: makespan(plan.pending, seconds, devices=number, widths=widths(plan, devices=number)) for number in devices}
        found |= {"seconds": work, "spread": max(wide.values(), default=1), "devices": [], "critical_path": longest}
        for number, wall in times.items():
            hours = number * wall / 3600
            paid = {"cost": hours * price} if price is not None else {}
            found["devices"].append(
                {"devices": number, "seconds": wall, "busy": work / (number * wall), "device_hours": hours} | paid
            )
    return found


def _graph(plan: Plan) -> Iterator[dict[str, Any]]:
    """The steps that are to do, those of one kind and depth together: how many, what each asks for, and what they wait for."""
    from refeed.studies import resources
    from refeed.studies.engines.arrays import arrays

    stages = arrays(plan.pending)
    for stage in stages:
        waits = [
            f"{'its own of' if how == 'aftercorr' else 'all of'} {stages[number].title}" for number, how in stage.after.items()
        ]
        asks = resources.of(plan.study.resources, stage.kind).described
        yield {"stage": stage.title, "steps": len(stage.tasks), "asks": asks, "after": ", ".join(waits)}


def _chain(plan: Plan, keys: list[str]) -> dict[str, Any]:
    """Whose steps a chain of tasks is made of, and how many of each kind; nothing where nothing is to do."""
    if not keys:
        return {}
    arm = plan.study.arms[plan.pending[keys[-1]].arms[0]]
    kinds = dict(Counter(plan.pending[key].kind for key in keys))
    return {"case": arm.case.name, "policy": arm.policy, "seed": arm.seed, "steps": kinds}


def show(found: dict[str, Any], console: Console) -> None:
    """Print it."""
    if found["graph"]:
        table = _table("stage", "steps", "each asks for", "waits for")
        for stage in found["graph"]:
            table.add_row(stage["stage"], f"{stage['steps']:,}", stage["asks"], stage["after"])
        console.print("\nThe graph of the steps that are to do:\n")
        console.print(table)
    if found["needs"]:
        table = _table("case", "step", "to do", "parameters", "tokens", "FLOPs", "bytes")
        for need in found["needs"]:
            cost = need["cost"]
            counts = (f"{cost['parameters']:,}" if cost["parameters"] else "", f"{cost['tokens']:,}")
            table.add_row(need["case"], need["kind"], f"{need['steps']:,}", *counts, _number(cost["flops"]), _bytes(cost["bytes"]))
        console.print("\nWhat the steps that are to do take:\n")
        console.print(table)
    if found["storage"]:
        table = _table("case", "policy", "rows made", "rows kept", 'rows = "all"', 'rows = "needed"', "models")
        for line in found["storage"]:
            rows = (f"{line['rows_made']:,}", f"{line['rows_kept']:,}")
            sizes = (_bytes(line["bytes_made"]), _bytes(line["bytes_kept"]), _bytes(line["model_bytes"]))
            table.add_row(line["case"], line["policy"], *rows, *sizes)
        console.print("\nWhat one lineage has on the disk after its last generation, before compression:\n")
        console.print(table)
    if not found["chain"]:
        console.print("\nEverything is done.")
        return
    if found["seconds"] is None:
        more = "" if found["rated"] else ", or type --flops RATE, or --calibrate"
        console.print(f"\nHow long that takes is not known: run some steps here first{more}.")
        console.print(f"The longest chain of steps is {_described(found['chain'])}.")
        return
    priced = ["cost"] if "cost" in found["devices"][0] else []
    table = _table("devices", "time", "speed-up", "busy", "device-hours", *priced)
    alone = found["seconds"]
    for line in found["devices"]:
        cost = [_amount(line["cost"], 0)] if priced else []
        speed = f"{alone / line['seconds']:.1f} x" if line["seconds"] else ""
        hours = _amount(line["device_hours"], 1)
        table.add_row(f"{line['devices']}", _time(line["seconds"]), speed, f"{line['busy']:.0%}", hours, *cost)
    spread = found["spread"]
    wide = f", but a fit to {spread} where there are as many, taken to be {spread} times as fast" if spread > 1 else ""
    console.print(f"\nTime, one step to a device{wide}:\n")
    console.print(table)
    limit = "no number of devices is faster" if spread == 1 else f"no number of devices is faster while a fit has {spread}"
    console.print(f"\nThe longest chain of steps takes {_time(found['critical_path'])}: {limit}.")
    console.print(f"It is {_described(found['chain'])}.")


def _described(chain: dict[str, Any]) -> str:
    steps = ", ".join(f"{number} {kind}" for kind, number in chain["steps"].items())
    return f"of {chain['case']}, {chain['policy']}, seed {chain['seed']}: {steps}"


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column in LEFT else "right", no_wrap=True)
    return table


def _number(value: float) -> str:
    return f"{value:.3g}" if value else ""


def _amount(value: float, places: int) -> str:
    return f"{value:,.{places}f}" if value >= 10 else f"{value:.2g}"


def _bytes(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.3g} {unit}" if value else ""
        value /= 1000
    raise AssertionError


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

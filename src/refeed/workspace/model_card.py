"""The model card that lies beside every kept model: which generation it is, what it learnt from, and how to make it again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import refeed
from refeed.core.recipes import recipe
from refeed.core.steps import Fit, Given


def write_card(step: Fit, folder: Path) -> None:
    """README.md in the model's folder: YAML for the hub and for programs, and the same in words."""
    about = describe(step)
    head: dict[str, Any] = {"tags": ["refeed", "model-collapse", "synthetic-data"]}
    if (folder / "config.json").is_file():
        head = {"library_name": "transformers", "pipeline_tag": "text-generation"} | head
    lines = [f"{key}: {json.dumps(value)}" for key, value in head.items()]  # JSON is YAML
    lines += ["refeed:", *(f"  {key}: {json.dumps(value)}" for key, value in about.items())]
    (folder / "README.md").write_text("\n".join(["---", *lines, "---", "", *_words(about)]), encoding="utf-8")


def describe(step: Fit) -> dict[str, Any]:
    """What is known of a model from its recipe: nothing that depends on when or where it was fitted."""
    start: Any = step.start.digest if step.start is not None else "scratch"
    if isinstance(step.start, Given):
        start = {"name": step.start.name, "digest": start}
    return {
        "version": refeed.__version__,
        "fit": step.digest,
        "generation": step.generation,
        "policy": recipe(step.policy) if step.policy is not None else None,
        "trained_on": {str(generation): rows for generation, rows in step.train.rows_by_generation().items()},
        "real_share": step.train.real_share,
        "parents": sorted({part.shard.origin.model for part in step.train if part.shard.origin.model is not None}),
        "start": start,
        "source": recipe(step.draw.source),
        "learner": recipe(step.learner),
        "seed": str(step.seed),
    }


def _words(about: dict[str, Any]) -> list[str]:
    kinds = ((rows, "real" if origin == "0" else f"of generation {origin}") for origin, rows in about["trained_on"].items())
    rows = ", ".join(f"{count:,} {kind}" for count, kind in kinds)
    start = about["start"]
    begun = (
        f"from the weights of {start['name']}"
        if isinstance(start, dict)
        else "from scratch"
        if start == "scratch"
        else (f"from the model {start}")
    )
    return [
        f"# Generation {about['generation']}",
        "",
        f"Fitted by refeed {about['version']} {begun} on these rows: {rows}.",
        "Rows of later generations were written by earlier models: the `parents` above, by the digests of their fits.",
        "A training set that several policies choose has one model; `policy` is the first that asked for it.",
        "",
        f"Recipe and provenance of every row: `refeed explain {about['fit']}` in the workspace that holds it.",
        "",
    ]

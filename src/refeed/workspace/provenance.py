"""Where rows come from, told from the manifests alone: nothing is run, and no model is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from refeed.core.errors import UserError
from refeed.workspace.files import MANIFEST


@dataclass(frozen=True, kw_only=True)
class Use:
    """How many rows of a shard a training set takes, and with which weight."""

    shard: str
    rows: int
    of: int
    weight: float


@dataclass(frozen=True, kw_only=True)
class Node:
    """One artefact as its manifest tells it: real rows, a model, or rows that a model wrote (and what was done to them)."""

    digest: str
    kind: str  # draw, fit, sample, ...; or "missing" where the workspace has no manifest of it
    manifest: dict[str, Any] = field(default_factory=dict)

    @property
    def is_model(self) -> bool:
        return self.kind == "fit"

    @property
    def is_real(self) -> bool:
        """Whether its rows play the part of real ones: they come from a source."""
        return self.kind == "draw"

    @property
    def real(self) -> bool | None:
        """Whether its rows are real; None where their own file does not say, or not of all alike."""
        origins = self.manifest.get("origins")
        return self.is_real if origins is None else {("real",): True, ("synthetic",): False}.get(tuple(origins))

    @property
    def said(self) -> str:
        """What was stated of the rows of which their own file says nothing."""
        return str(self.manifest.get("said", "unknown"))

    @property
    def rows(self) -> int | None:
        """How many rows the shard has; of a model, how many it was fitted on."""
        return sum(use.rows for use in self.uses) if self.is_model else self.manifest.get("rows")

    @property
    def uses(self) -> tuple[Use, ...]:
        """The training set of a model."""
        parts = self.manifest.get("train", ())
        return tuple(Use(shard=part["shard"], rows=part["rows"], of=part["of"], weight=part["weight"]) for part in parts)

    @property
    def parents(self) -> tuple[str, ...]:
        """What this was made from, on the way to real data."""
        if self.is_model:
            start = self.manifest.get("start")
            return (*dict.fromkeys(use.shard for use in self.uses), *([start] if start else []))
        if self.kind == "sample":
            return (self.manifest["model"],)
        return (self.manifest["of"],) if "of" in self.manifest else tuple(self.manifest.get("inputs", ()))


class Provenance:
    """The manifests of a workspace, read when asked for."""

    def __init__(self, workspace: str | Path) -> None:
        self.path = Path(workspace)
        if not (self.path / "refeed.json").is_file():
            raise UserError(
                f"{self.path} is not a refeed workspace (there is no refeed.json).",
                hint="Name the folder of a run: --workspace FOLDER",
            )
        self._nodes: dict[str, Node] = {}
        self._depths: dict[str, float] = {}

    def folder(self, digest: str) -> Path:
        return self.path / "steps" / digest

    def __iter__(self) -> Iterator[Node]:
        """Every artefact, in the order of their digests."""
        return (self.node(path.parent.name) for path in sorted((self.path / "steps").glob(f"*/{MANIFEST}")))

    def find(self, prefix: str) -> Node:
        """The one artefact whose digest begins with `prefix`."""
        prefix = prefix.strip().lower()
        found = [path.name for path in (self.path / "steps").glob(f"{prefix}*")] if prefix.isalnum() else []
        if len(found) == 1:
            return self.node(found[0])
        if found:
            ends = ", ".join(sorted(found)[:4]) + (", ..." if len(found) > 4 else "")
            raise UserError(f"{len(found)} digests begin with {prefix}: {ends}", hint="Give more of its digits.")
        raise UserError(
            f"{self.path} has no shard {prefix!r}.",
            hint="Type: refeed explain   (lists the shards). Families that rebuild their rows keep none: use refeed export.",
        )

    def node(self, digest: str) -> Node:
        if digest not in self._nodes:
            try:
                manifest = json.loads((self.folder(digest) / MANIFEST).read_bytes())
                self._nodes[digest] = Node(digest=digest, kind=manifest["kind"], manifest=manifest)
            except (OSError, ValueError, KeyError, TypeError):
                self._nodes[digest] = Node(digest=digest, kind="missing")
        return self._nodes[digest]

    def ancestors(self, digest: str) -> list[Node]:
        """All that `digest` stands on and itself, each once, whatever stands on nothing else first."""
        order: dict[str, None] = {}
        stack = [(digest, False)]
        while stack:
            current, seen = stack.pop()
            if current in order:
                continue
            if seen:
                order[current] = None
                continue
            stack.append((current, True))
            stack.extend((parent, False) for parent in reversed(self.node(current).parents) if parent not in order)
        return [self.node(name) for name in order]

    def depth(self, digest: str) -> float:
        """How many models stand between a row and real data: 0 for real rows, 1 + its model's mean for sampled ones.

        A model's depth is the weighted mean over the rows it was fitted on. NaN where a manifest on the way is missing.
        """
        if digest not in self._depths:
            for node in self.ancestors(digest):
                self._depths.setdefault(node.digest, self._depth(node))
        return self._depths[digest]

    def _depth(self, node: Node) -> float:
        if node.is_real:
            return 0.0
        if node.is_model:
            total = sum(use.weight * use.rows for use in node.uses)
            depths = sum(use.weight * use.rows * self._depths[use.shard] for use in node.uses)
            return depths / total if total else float("nan")
        if node.kind == "sample":
            return 1.0 + self._depths[node.manifest["model"]]
        shards = [self._depths[parent] for parent in node.parents if not self.node(parent).is_model]
        return max(shards, default=float("nan"))  # rows that were filtered or changed: as deep as they were

    def generation(self, node: Node) -> int | None:
        """0 for real rows, g for rows of the model of generation g."""
        return 0 if node.is_real else node.manifest.get("generation")

    def world(self, node: Node) -> Path | None:
        """The folder of the real data that a shard's lineage began with, which holds what makes its rows readable."""
        for parent in (node.digest, *node.manifest.get("inputs", ())):
            if self.node(parent).is_real:
                return self.folder(parent)
        return None


def real_rows(said: np.ndarray, origin: str = "unknown") -> list[bool | None]:
    """Whether rows are real by what their file says (1 real, 0 synthetic, 2 nothing); `origin` speaks where it says nothing."""
    otherwise = {"real": True, "synthetic": False}.get(origin)
    return [bool(value) if value < 2 else otherwise for value in said.tolist()]


def given(origins: dict[str, int] | None) -> str:
    """What source rows are: real, or what their file says of them."""
    if origins is None or set(origins) == {"real"}:
        return "real"
    return "given as real, but by their file " + ", ".join(
        f"{count:,} {'of unknown origin' if name == 'unknown' else name}" for name, count in origins.items()
    )


def recipe_text(recipe: Any) -> str:
    """A recipe on one line: Llama(width=96, layers=1)."""
    if not isinstance(recipe, dict) or "kind" not in recipe:
        return str(recipe)
    fields = recipe.get("fields", {})
    options = {name: value for name, value in fields.items() if value not in (None, "")}
    inner = ", ".join(f"{name}={recipe_text(value)}" for name, value in options.items())
    return f"{str(recipe['kind']).rpartition(':')[2]}({inner})"


def tree(provenance: Provenance, digest: str, *, max_models: int | None = 6) -> Iterator[str]:
    """The way back to real data as lines of a tree; what was shown above is only named, and past `max_models` counted."""
    shown: set[str] = set()
    stack: list[tuple[str, Use | None, str, str, int]] = [(digest, None, "", "", 0)]
    while stack:
        current, use, first, rest, models = stack.pop()
        node = provenance.node(current)
        if node.is_model and models == max_models and current not in shown:
            hidden = [n for n in provenance.ancestors(current) if n.digest not in shown]
            num_models = sum(n.is_model for n in hidden)
            counts = f"{_count(num_models, 'more model')} and {_count(len(hidden) - num_models, 'more shard')}"
            yield f"{first}... {counts}; all of it: --depth 0, or --json"
            continue
        again = current in shown and node.parents
        yield f"{first}{_title(provenance, node, use)}{'  (above)' if again else ''}"
        shown.add(current)
        if again:
            continue
        below: list[tuple[str, Use | None]] = [(u.shard, u) for u in node.uses]
        below += [(parent, None) for parent in node.parents if all(parent != shard for shard, _ in below)]
        for number, (parent, used) in reversed(list(enumerate(below))):
            branch, indent = ("└─ ", "   ") if number == len(below) - 1 else ("├─ ", "│  ")
            stack.append((parent, used, rest + branch, rest + indent, models + node.is_model))


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _title(provenance: Provenance, node: Node, use: Use | None) -> str:
    name = f"{'model' if node.is_model else 'shard'} {node.digest[:12]}"
    if node.kind == "missing":
        return f"{node.digest[:12]}  not in this workspace"
    about = node.manifest
    count = f"{use.rows:,} of {use.of:,} rows" if use else f"{node.rows:,} rows"
    count += f", weight {use.weight:g}" if use and use.weight != 1 else ""
    if node.is_real:
        return f"{name}  {count}, {given(about.get('origins'))}: {recipe_text(about.get('source'))}, seed {about.get('seed')}"
    if node.is_model:
        real = sum(u.weight * u.rows for u in node.uses if provenance.node(u.shard).is_real)
        total = sum(u.weight * u.rows for u in node.uses)
        share = f"{real / total:.1%} real, " if total else ""
        fit = f"{recipe_text(about.get('learner'))}, seed {about.get('seed')}"
        if start := about.get("given"):
            fit += f", begun from the weights of {start['name']} (content {start['digest'][:12]})"
        return f"{name}  fitted on {count} ({share}mean depth {provenance.depth(node.digest):.3g}): {fit}"
    how = recipe_text(about.get("sampler") or about.get("alteration") or node.kind)
    seed = f", seed {about['seed']}" if about.get("seed") else ""
    born = f"generation {provenance.generation(node)}, depth {provenance.depth(node.digest):.3g}"
    return f"{name}  {count}, synthetic, {born}: {how}{seed}"


def as_json(provenance: Provenance, digest: str) -> dict[str, Any]:
    """The same as data: every artefact on the way, real data first, by digest."""
    nodes = {}
    for node in provenance.ancestors(digest):
        about = {key: value for key, value in node.manifest.items() if key not in ("format", "made", "outputs", "digest")}
        depth = provenance.depth(node.digest)
        extra = {"kind": node.kind, "generation": provenance.generation(node), "depth": None if depth != depth else depth}
        size = sum(output["bytes"] for output in node.manifest.get("outputs", {}).values())
        nodes[node.digest] = about | extra | {"real": node.real, "bytes": size}
    return {"digest": digest, "nodes": nodes}

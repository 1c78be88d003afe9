"""The ledger: what each generation was trained on, by origin, what keeping it costs, and an audit of what its model wrote.

One seed a policy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from refeed.core.ancestry import Ancestry, real_weight, unique_rows
from refeed.core.loop import Turn, start
from refeed.core.loop import turn as advance
from refeed.core.shards import Part, Pool, Shard
from refeed.core.steps import POSITION
from refeed.studies.study import Study
from refeed.workspace import Workspace
from refeed.workspace.shards import shard_file, tables

PROMPT = "prompt_tokens"  # the column in which a sampler says how many first tokens of a row it took from a real one


def ledger(study: Study, store: Workspace) -> Iterator[dict[str, Any]]:
    """A line for each case, policy and generation, from recipes alone; bytes and tokens from what the workspace keeps."""
    copies = _contents(study, store)
    for arm in study.arms:
        if arm.seed != study.seeds[0]:
            continue
        ancestry, state = Ancestry(arm.turns), start(arm.lineage)
        for turn in arm.turns:
            state, _ = advance(arm.lineage, state)
            tokens, given, real = _tokens(turn.train, store) or (None, None, None)
            yield {
                "case": arm.case.name,
                "policy": arm.policy,
                "seed": arm.seed,
                "generation": turn.generation,
                "rows": turn.train.num_rows,
                "unique_rows": unique_rows(turn.train),
                "real_share": turn.train.real_share,
                "real_weight": real_weight(turn.train),
                "depth": ancestry.depth(turn.train),
                "effective_rows": ancestry.effective_rows(turn.train),
                "rows_kept": unique_rows(state.pool),
                "bytes": _bytes(state.pool, store),
                "tokens": tokens,
                "prompt_tokens": given,
                "real_tokens": real,
                "rejected": 1 - turn.fresh.num_rows / turn.sampled.num_rows if turn.sampled.num_rows else None,
                **_audit(turn, store, copies),
            }


def _contents(study: Study, store: Workspace) -> Counter[str]:
    """With how many seeds a study sampled the same rows. More than one for a content: a sampler that ignores its seed."""
    sampled = {turn.sampled.digest: turn.sampled for arm in study.arms if not arm.lineage.source.rebuilds for turn in arm.turns}
    audits = ((store.audit(shard.step), shard.step) for shard in sampled.values() if shard.num_rows)
    return Counter(content for content, _ in {(audit["content"], step.seed.key) for audit, step in audits if audit is not None})


def _audit(turn: Turn, store: Workspace, copies: Counter[str]) -> dict[str, Any]:
    """Of what the model wrote, before filters; None where rows are rebuilt, and for what is no sequence."""
    of_sampled, of_real = store.audit(turn.sampled.step) or {}, store.audit(turn.model.draw) or {}
    return {
        "repeats": of_sampled.get("repeats"),
        "repeats_real": of_real.get("repeats"),
        "ended": of_sampled.get("ended"),
        "mean_length": of_sampled.get("mean_length"),
        "same_rows": copies[of_sampled["content"]] - 1 if of_sampled.get("content") in copies else None,
    }


def _bytes(pool: Pool, store: Workspace) -> int | None:
    """What the shards that a pool refers to hold on disk; None where rows are rebuilt, or not all there."""
    sizes = {part.shard.digest: _size(part.shard, store) for part in pool}
    return None if not sizes or None in sizes.values() else sum(size for size in sizes.values() if size is not None)


def _size(shard: Shard, store: Workspace) -> int | None:
    try:
        return int((store.manifest(shard.step) or {})["outputs"][_file(shard, store).name]["bytes"])
    except KeyError:
        return None


def _tokens(pool: Pool, store: Workspace) -> tuple[int, int, int] | None:
    """Tokens of a training set; those of them that began a sampled row because a real one begins so; and all real ones.

    None where rows have none or are not kept.
    """
    counts = [_tokens_of(part, store) for part in pool]
    if not counts or None in counts:
        return None
    tokens = given = real = 0
    for part, count in zip(pool, counts, strict=True):
        assert count is not None
        tokens, given = tokens + count[0], given + count[1]
        real += count[0] if part.shard.origin.is_real else count[1]
    return tokens, given, real


def _tokens_of(part: Part, store: Workspace) -> tuple[int, int] | None:
    """Tokens of so many rows of a shard, and those of them that were given as prompts."""
    path = _file(part.shard, store)
    if part.shard.step.rebuilds or not path.is_file():
        return None
    found = _lengths(path, path.stat().st_mtime_ns)
    if found is None:
        return None
    positions, lengths, given = found
    if part.index is None:
        chosen: Any = slice(None)
        if len(lengths) != part.shard.num_rows:
            return None
    elif positions is None:
        chosen = part.index
    else:
        chosen = np.isin(positions, part.index)  # a trimmed shard may have lost some of them
        if chosen.sum() != len(part.index):
            return None
    return int(lengths[chosen].sum()), int(given[chosen].sum()) if given is not None else 0


def _file(shard: Shard, store: Workspace) -> Path:
    return shard_file(store.folder(shard.step), shard.step.kind)


@lru_cache(maxsize=256)
def _lengths(path: Path, modified: int) -> tuple[np.ndarray | None, np.ndarray, np.ndarray | None] | None:
    """The positions of the stored rows (None where all are there), their tokens, and those of a prompt (None where none has one).

    Four bytes each. None for rows without tokens.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    positions, lengths, given = [], [np.zeros(0, dtype=np.int32)], []
    try:
        for table in tables(path):
            if "tokens" not in table.column_names:
                return None
            lengths.append(pc.list_value_length(table["tokens"]).to_numpy().astype(np.int32))
            if POSITION in table.column_names:
                positions.append(table[POSITION].to_numpy())
            if PROMPT in table.column_names:
                given.append(table[PROMPT].to_numpy().astype(np.int32))
    except (OSError, pa.ArrowException):
        return None
    return _joined(positions), np.concatenate(lengths), _joined(given)


def _joined(pieces: list[np.ndarray]) -> np.ndarray | None:
    return np.concatenate(pieces) if pieces else None

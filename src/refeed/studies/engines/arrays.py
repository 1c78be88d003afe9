"""From a plan to job arrays: steps of one kind and depth together, each array after those that its steps need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from refeed.studies.tasks import Task

MAX_ARRAY = 1000  # Slurm's MaxArraySize is 1001 unless an administrator changed it


@dataclass(frozen=True, kw_only=True)
class Array:
    """Independent tasks of one kind. `after` maps the place of an earlier array in the list to how this one waits for it.

    `aftercorr`: task i may begin when task i of that array has ended well; `afterany`: when all tasks of that array have ended.
    """

    title: str
    kind: str
    tasks: tuple[Task, ...]
    after: Mapping[int, str]


def arrays(tasks: Mapping[str, Task], *, most: int = MAX_ARRAY) -> list[Array]:
    """The arrays that do `tasks`, given in an order in which each comes after those it needs; needs outside `tasks` are done."""
    ancestors: dict[str, frozenset[str]] = {}
    needs: dict[str, frozenset[str]] = {}
    depth: dict[str, int] = {}
    for key, task in tasks.items():
        after = task.after & tasks.keys()
        behind = frozenset[str]().union(*(ancestors[other] for other in after))
        ancestors[key] = behind | after
        needs[key] = after - behind  # what waiting for the others does not imply already
        depth[key] = 1 + max((depth[other] for other in after), default=0)
    found: list[Array] = []
    place: dict[str, tuple[int, int]] = {}  # array, and position in it
    kinds: dict[tuple[int, str], list[Task]] = {}
    for key, task in tasks.items():
        kinds.setdefault((depth[key], task.kind), []).append(task)
    for (level, kind), group in sorted(kinds.items(), key=lambda entry: entry[0][0]):
        group.sort(key=lambda task: min((place[key] for key in needs[task.key]), default=(0, 0)))
        for part, first in enumerate(range(0, len(group), most)):
            chosen = tuple(group[first : first + most])
            title = f"{level:03}-{kind}" + (f"-{part}" if len(group) > most else "")
            wanted = [sorted(place[key] for key in needs[task.key]) for task in chosen]
            earlier = sorted({array for needed in wanted for array, _ in needed})
            waits = {number: _waiting(number, wanted, len(found[number].tasks)) for number in earlier}
            place |= {task.key: (len(found), position) for position, task in enumerate(chosen)}
            found.append(Array(title=title, kind=kind, tasks=chosen, after=waits))
    return found


def _waiting(number: int, wanted: list[list[tuple[int, int]]], size: int) -> str:
    """`aftercorr` where every task needs at most the task of its own position, and there is one; else `afterany`."""
    aligned = all(position == own for own, needed in enumerate(wanted) for array, position in needed if array == number)
    return "aftercorr" if aligned and 1 < len(wanted) <= size else "afterany"

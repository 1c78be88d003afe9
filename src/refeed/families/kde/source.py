"""Clouds of real points with a known law: two circles, two moons, a roll, blobs, and the normal line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from refeed.core.errors import StudyError
from refeed.core.protocols import World
from refeed.core.rows import Rows
from refeed.core.seeds import Seed

Shape = Literal["moons", "circles", "roll", "blobs", "normal"]
CENTERS = np.array([[-6.0, 2.0], [5.0, 6.0], [2.0, -5.0]])  # the same for training and test points


def moons(rng: np.random.Generator, num_rows: int) -> np.ndarray:
    """Two interleaving half circles of radius 1, noise .05."""
    angle, lower = np.pi * rng.random(num_rows), rng.random(num_rows) < 0.5
    x = np.where(lower, 1 - np.cos(angle), np.cos(angle))
    y = np.where(lower, 0.5 - np.sin(angle), np.sin(angle))
    return np.stack([x, y], axis=1) + 0.05 * rng.standard_normal((num_rows, 2))


def circles(rng: np.random.Generator, num_rows: int) -> np.ndarray:
    """Two circles of radius 1 and .5, noise .05."""
    angle, radius = 2 * np.pi * rng.random(num_rows), np.where(rng.random(num_rows) < 0.5, 0.5, 1.0)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1) + 0.05 * rng.standard_normal((num_rows, 2))


def roll(rng: np.random.Generator, num_rows: int) -> np.ndarray:
    """A swiss roll in three dimensions, as tall as it is wide, noise .05."""
    t, height = 1.5 * np.pi * (1 + 2 * rng.random(num_rows)), 21 * rng.random(num_rows)
    return np.stack([t * np.cos(t), height, t * np.sin(t)], axis=1) + 0.05 * rng.standard_normal((num_rows, 3))


def blobs(rng: np.random.Generator, num_rows: int) -> np.ndarray:
    """Three unit Gaussians about fixed centres."""
    return CENTERS[rng.integers(3, size=num_rows)] + rng.standard_normal((num_rows, 2))


def normal(rng: np.random.Generator, num_rows: int) -> np.ndarray:
    """The standard normal line, for which the theory is exact."""
    return rng.standard_normal((num_rows, 1))


SHAPES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "moons": moons,
    "circles": circles,
    "roll": roll,
    "blobs": blobs,
    "normal": normal,
}


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Points of a known shape. Every lineage draws its own training points; the held-out points come from the same law."""

    shape: Shape = "moons"
    rows: int = 100
    test_rows: int = 500
    rebuilds: ClassVar[bool] = True
    random: ClassVar[bool] = True
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise StudyError(f"source.shape must be one of {', '.join(SHAPES)}, not {self.shape!r}")
        if self.rows < 2 or self.test_rows < 1:
            raise StudyError(f"source.rows >= 2 and source.test_rows >= 1 are needed, not {self.rows} and {self.test_rows}")

    @property
    def num_rows(self) -> int:
        return self.rows

    def draw(self, *, seed: Seed) -> World:
        train = SHAPES[self.shape]((seed / "train").generator(), self.rows)
        test = SHAPES[self.shape]((seed / "test").generator(), self.test_rows)
        return World(train=Rows(x=train), test=Rows(x=test))

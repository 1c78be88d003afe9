"""Sources without files: procedural faces, whose rates are known, and scikit-learn's scanned digits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from refeed.core.errors import MissingExtra, StudyError
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.families.images import faces, worlds
from refeed.families.images.worlds import ImageWorld

NUM_DIGITS = 1797


@dataclass(frozen=True, kw_only=True)
class Faces:
    """Drawn faces with known factors; every lineage draws its own. See `faces.RATES` for how common each attribute is.

    `size`: pixels on a side.
    """

    rows: int = 3000
    test_rows: int = 1000
    size: int = 32
    attributes: ClassVar[tuple[str, ...]] = tuple(faces.RATES)
    rebuilds: ClassVar[bool] = False
    random: ClassVar[bool] = True
    knows: ClassVar[frozenset[str]] = frozenset({"attributes"})
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name, least in (("rows", 1), ("test_rows", 1), ("size", 8)):
            if getattr(self, name) < least:
                raise StudyError(f"source.{name} must be at least {least}, not {getattr(self, name)}")

    @property
    def num_rows(self) -> int:
        return self.rows

    def draw(self, *, seed: Seed) -> ImageWorld:
        train, train_codes = faces.draw(self.rows, size=self.size, rng=(seed / "train").generator())
        test, test_codes = faces.draw(self.test_rows, size=self.size, rng=(seed / "test").generator())
        return worlds.world_of(train, test, faces.RATES, (train_codes, test_codes))

    def load(self, folder: Path, *, train: Rows, test: Rows) -> ImageWorld:
        return worlds.load(folder, train=train, test=test)


@dataclass(frozen=True, kw_only=True)
class Digits:
    """1797 scanned digits of 8 x 8 grey pixels, enlarged to `size`; the same split for every lineage.

    Real data without a download: the test set of the UCI optical recognition of handwritten digits (Alpaydin and Kaynak, 1998), as
    scikit-learn ships it. Shuffled once, the last `test_rows` held out.
    """

    test_rows: int = 397
    size: int = 32
    attributes: ClassVar[tuple[str, ...]] = ("digit",)
    rebuilds: ClassVar[bool] = False
    random: ClassVar[bool] = False
    knows: ClassVar[frozenset[str]] = frozenset({"attributes"})
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0 < self.test_rows < NUM_DIGITS:
            raise StudyError(f"source.test_rows must lie between 1 and {NUM_DIGITS - 1}, not be {self.test_rows}")
        if self.size < 8:
            raise StudyError(f"source.size must be at least 8, not {self.size}")

    @property
    def num_rows(self) -> int:
        return NUM_DIGITS - self.test_rows

    def draw(self, *, seed: Seed) -> ImageWorld:
        from PIL import Image

        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise MissingExtra(
                "source 'digits' needs scikit-learn, which holds the scans and is not installed.",
                hint="Type: pip install scikit-learn",
            ) from None
        scans, labels = load_digits(return_X_y=True)
        grey = np.rint(scans.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
        large = [np.asarray(Image.fromarray(scan).resize((self.size, self.size), Image.Resampling.BILINEAR)) for scan in grey]
        order = (Seed(0) / "digits").generator().permutation(NUM_DIGITS)
        images, labels = np.stack(large)[order, :, :, None], labels[order].astype(np.uint8)
        cut = self.num_rows
        return worlds.world_of(
            images[:cut], images[cut:], {"digit": tuple("0123456789")}, ({"digit": labels[:cut]}, {"digit": labels[cut:]})
        )

    def load(self, folder: Path, *, train: Rows, test: Rows) -> ImageWorld:
        return worlds.load(folder, train=train, test=test)

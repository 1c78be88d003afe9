"""What is measured of a model of images: its loss on real images, its samples against real ones, and their attributes.

Metrics of samples judge the first N of them, N fixed by the source: at most `rows`, the held-out rows, and what was sampled.
Quantities that end in `_real` say the same of N real training rows against the same held-out rows: the floor, or the ceiling, to
expect.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from hashlib import file_digest
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from refeed.core.errors import StudyError
from refeed.core.protocols import Quantity, with_real
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.families.images import estimators
from refeed.families.images.worlds import Attribute, ImageWorld, images_of

if TYPE_CHECKING:
    from refeed.families.images.model import ImageModel

SPACES = ("attributes", "random-conv", "pixel-pca")
CHOICE = Seed(0) / "images" / "choice"
RARE = 0.15


@dataclass(frozen=True, kw_only=True)
class TestLoss:
    """The model's training loss on the held-out real images, as they are, in float32; and its terms, if it has any."""

    __test__: ClassVar[bool] = False  # not a pytest class
    name: ClassVar[str] = "test_loss"
    needs: ClassVar[frozenset[str]] = frozenset({"loss"})
    quantities: ClassVar[tuple[Quantity, ...]] = (
        Quantity(name="loss", role="risk", meaning="training loss on held-out real images"),
        Quantity(name="reconstruction", unit="squared pixel", meaning="mean squared error of held-out images, pixels in [0, 1]"),
        Quantity(name="kl", unit="nats/image", better="neither", meaning="KL(q(z|x) || p(z)) on held-out images"),
        Quantity(name="reconstruction_at_mean", unit="squared pixel", meaning="the same with z at its mean"),
        Quantity(name="active_units", unit="dimensions", better="neither", meaning="dimensions of z with more than 0.1 nats"),
    )
    version: ClassVar[int] = 1

    def measure(self, model: ImageModel, *, world: ImageWorld, samples: Rows | None, seed: Seed) -> dict[str, float]:
        return model.test_loss(images_of(world.test), seed=seed)


@dataclass(frozen=True, kw_only=True)
class Distances:
    """Samples against held-out real images in one named feature space: how far, how much of it, how varied.

    Frechet (`fd`) and kernel (`kid`) distances, precision, recall, density and coverage with k = `neighbours`, and the Vendi score
    with a Gaussian kernel half as wide as the median distance between real images. See `estimators` for each definition.

    `features`: "attributes", "random-conv", "pixel-pca", or `module:callable` of your own, called with nothing, which returns a
    torch module from images (rows, channels, size, size) in [0, 1] to (rows, dimensions); `weights` is the file of its state, if
    any, and part of the metric's identity by its content. Every number is the mean over `estimates` estimates, each with its own
    choice of N sampled and N real images where there are more, and, in the space random-conv, with its own network;
    `fd_*_deviation` is the standard deviation of one estimate of fd.
    """

    features: str = "random-conv"
    rows: int = 1000
    neighbours: int = 5
    estimates: int = 3
    weights: str = ""
    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        check_features(self.features, self.weights)
        if self.rows <= self.neighbours or self.neighbours < 1:
            raise StudyError(f"metric distances needs 1 <= neighbours < rows, not {self.neighbours} and {self.rows}")
        if self.estimates < 1:
            raise StudyError(f"metric distances needs estimates >= 1, not {self.estimates}")

    def identity(self) -> dict[str, object]:
        fields: dict[str, object] = {name: getattr(self, name) for name in ("features", "rows", "neighbours", "estimates")}
        return fields | ({"weights": content_of(self.weights)} if self.weights else {})

    @property
    def name(self) -> str:
        return f"distances_{self._suffix}"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"samples", "attributes"} if self.features == "attributes" else {"samples"})

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        space = f"in the space {self.features}"
        made = (
            ("fd", "feature^2", "lower", "quality", f"Frechet distance to held-out real images {space}"),
            ("kid", "1", "lower", "quality", f"kernel distance to held-out real images {space}, unbiased"),
            ("precision", "1", "higher", "quality", f"share of samples among real images {space}; rises under collapse"),
            ("density", "1", "higher", "quality", f"how densely samples lie among real images {space}; rises under collapse"),
            ("recall", "1", "higher", "diversity", f"share of real images among samples {space}"),
            ("coverage", "1", "higher", "diversity", f"share of real images with a sample near {space}"),
            ("vendi", "images", "higher", "diversity", f"effective number of different samples {space}"),
        )
        return (
            *with_real(
                *((f"{name}_{self._suffix}", *line) for name, *line in made),
                real="real training images",
            ),
            Quantity(
                name=f"fd_{self._suffix}_deviation",
                unit="feature^2",
                better="neither",
                meaning="standard deviation of one estimate of fd",
            ),
        )

    @property
    def _suffix(self) -> str:
        return self.features.rpartition(":")[2].replace("-", "_")

    def measure(self, model: ImageModel, *, world: ImageWorld, samples: Rows | None, seed: Seed) -> dict[str, float]:
        from refeed.families.images import features

        sets = [images_of(rows) for rows in (world.test, world.train, *([samples] if samples is not None else []))]
        if len(sets) < 3 or not len(sets[2]):
            raise StudyError(f"metric {self.name!r} needs sampled images, but the policy samples none")
        if len(sets[0]) <= self.neighbours:
            raise StudyError(f"metric {self.name!r} needs more than {self.neighbours} held-out images, not {len(sets[0])}")
        count = min(self.rows, *map(len, sets))
        found: dict[str, list[float]] = {}
        for number in range(self.estimates):
            # The real rows are chosen alike for every model, so that floors do not move between generations.
            seeds = (CHOICE / number / "test", CHOICE / number / "train", seed / number)
            extract = features.extractor(self.features, world, number=number, weights=self.weights)
            chosen = (images[_some(len(images), count, where)] for images, where in zip(sets, seeds, strict=True))
            test, train, made = (extract(images) for images in chosen)
            scale = estimators.median_distance(test) / 2
            for points, ending in ((made, ""), (train, "_real")):
                numbers = {
                    "fd": estimators.frechet_distance(test, points),
                    "kid": estimators.kernel_distance(test, points),
                    **estimators.precision_recall(test, points, neighbours=self.neighbours),
                    "vendi": estimators.vendi(points, scale=scale),
                }
                for name, value in numbers.items():
                    found.setdefault(f"{name}_{self._suffix}{ending}", []).append(value)
        deviation = np.std(found[f"fd_{self._suffix}"], ddof=1) if self.estimates > 1 else 0.0
        return {name: float(np.mean(values)) for name, values in found.items()} | {f"fd_{self._suffix}_deviation": float(deviation)}


def _some(available: int, count: int, seed: Seed) -> np.ndarray:
    """`count` of `available` positions, sorted; all where there are no more."""
    return np.sort(seed.generator().permutation(available)[:count])


@dataclass(frozen=True, kw_only=True)
class ImageAudit:
    """Samples in pixels: how much they vary, whether they are copies, and whether the prior is where the model learnt to decode.

    Pixel variance: the mean over pixel values of their variance over images; `variance_ratio` is that of samples over that of real
    training images. `nearest_train`: root mean squared difference to the nearest real training image, median over samples; well
    below that of held-out real images, it means memorised rows. `prior_shortfall`: 1 - (pixel variance of samples) / (that of the
    model's reconstructions of its own training rows) where that ratio is under 0.6, else 0; only of models that reconstruct.
    """

    rows: int = 1000
    name: ClassVar[str] = "image_audit"
    needs: ClassVar[frozenset[str]] = frozenset({"samples"})
    quantities: ClassVar[tuple[Quantity, ...]] = (
        *with_real(
            Quantity(
                name="variance_ratio",
                better="higher",
                role="diversity",
                meaning="pixel variance of samples over that of real training images",
            ),
            Quantity(
                name="nearest_train",
                better="neither",
                meaning="pixel distance to the nearest real training image, median",
            ),
            real="held-out real images",
        ),
        Quantity(
            name="duplicates_above_chance",
            role="audit",
            meaning="share of repeats among samples, less that among real images",
        ),
        Quantity(
            name="prior_shortfall",
            better="lower",
            meaning="pixel variance of reconstructions that samples lack, where they lack more than 0.4 of it",
            notice="of the variance of reconstructions is missing among samples: they are partly noise of the decoder, "
            "so train longer or with fewer latent dimensions before reading this as collapse",
        ),
        Quantity(name="images_judged", unit="images", better="neither", meaning="sampled images looked at"),
    )
    version: ClassVar[int] = 2

    def measure(self, model: ImageModel, *, world: ImageWorld, samples: Rows | None, seed: Seed) -> dict[str, float]:
        train, test, made = _sets(self.name, samples, world, self.rows)
        real = images_of(world.train)
        variance = pixel_variance(made)
        found = {
            "variance_ratio": variance / max(pixel_variance(train), 1e-12),
            "variance_ratio_real": pixel_variance(test) / max(pixel_variance(train), 1e-12),
            "nearest_train": float(np.median(nearest(made, real))),
            "nearest_train_real": float(np.median(nearest(test, real))),
            "duplicates_above_chance": _repeats(made) - _repeats(train),
            "images_judged": float(len(made)),
        }
        if (learnt := getattr(model, "spread", None)) is not None:
            found["prior_shortfall"] = 1 - variance / learnt if variance < 0.6 * learnt else 0.0
        return found


@dataclass(frozen=True, kw_only=True)
class AttributeRates:
    """How common each attribute's values are among samples, told by a network fitted on the real training rows' attributes.

    A value is rare if at most 15 % of the real training rows have it. `rare_kept`: the mean over rare values of min(1, rate among
    samples / real rate). `values_lost`: how many of all values have less than a tenth of their real rate. `attribute_entropy`: the
    entropy of the rates, summed over attributes. `track`: attributes whose rates are reported one by one; of one with the values
    no and yes, the rate of yes. The network's own error is `judge_accuracy`, on held-out real images; on images unlike any real
    one it must guess.
    """

    track: tuple[str, ...] = ()
    rows: int = 3000
    name: ClassVar[str] = "attribute_rates"
    needs: ClassVar[frozenset[str]] = frozenset({"samples", "attributes"})
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "track", tuple(self.track))

    def check(self, *, source: Any, learner: Any) -> None:
        if (known := getattr(source, "attributes", None)) is not None:
            self._refuse_unknown(known)

    def _refuse_unknown(self, known: Collection[str]) -> None:
        if unknown := [name for name in self.track if name not in known]:
            raise StudyError(
                f"metric 'attribute_rates' is to track {', '.join(unknown)}, which this source does not have",
                hint=f"Its attributes: {', '.join(known) or 'none'}.",
            )

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        found = [
            ("attribute_entropy", "nats", "higher", "diversity", "entropy of attribute values among samples, summed"),
            ("rare_kept", "1", "higher", "tail", "share of their real rate that rare attribute values keep"),
            *((f"rate_{name}", "1", "neither", "other", f"share of samples with the attribute {name}") for name in self.track),
        ]
        return (
            *with_real(
                *found,
                real="held-out real images",
            ),
            Quantity(name="values_lost", unit="values", role="other", meaning="attribute values all but gone"),
            Quantity(name="judge_accuracy", better="neither", meaning="of the attribute network, on held-out real images"),
        )

    def measure(self, model: ImageModel, *, world: ImageWorld, samples: Rows | None, seed: Seed) -> dict[str, float]:
        from refeed.families.images import features

        known = {attribute.name: attribute for attribute in world.attributes}
        self._refuse_unknown(known)
        judge = features.judge_of(world)
        if samples is None or not len(samples):
            raise StudyError("metric 'attribute_rates' needs sampled images, but the policy samples none")
        told = judge.codes(images_of(samples)[: self.rows])
        told_of_real = judge.codes(images_of(world.test))
        right = [float((told_of_real[name] == attribute.test).mean()) for name, attribute in known.items()]
        result = {"judge_accuracy": float(np.mean(right))}
        for codes, ending in ((told, ""), (told_of_real, "_real")):
            rates = {name: attribute.rates(codes[name]) for name, attribute in known.items()}
            result[f"attribute_entropy{ending}"] = sum(estimators.entropy(rate) for rate in rates.values())
            result[f"rare_kept{ending}"] = _rare_kept(known, rates)
            for name in self.track:
                result[f"rate_{name}{ending}"] = float(rates[name][-1])
        lost = [rate < 0.1 * a.rates(a.train) for a, rate in ((a, a.rates(told[a.name])) for a in world.attributes)]
        return result | {"values_lost": float(np.concatenate(lost).sum())}


def check_features(features: str, weights: str) -> None:
    """Refuse a space that is not known, and weights where there is nothing to put them into."""
    if features not in SPACES and ":" not in features:
        known = ", ".join(map(repr, SPACES))
        raise StudyError(f"features must be {known}, or module:callable of a network of yours, not {features!r}")
    if weights and features in SPACES:
        raise StudyError(f"the space {features!r} has its own weights", hint="Give features = 'module:callable' with them.")


@lru_cache(maxsize=4)
def content_of(path: str) -> str:
    """The SHA-256 of a file of weights: what counts is its content, not its name."""
    try:
        with Path(path).expanduser().open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StudyError(f"the weights {path} cannot be read: {error.strerror}") from None


def pixel_variance(images: np.ndarray) -> float:
    """The mean over pixel values of their variance over images, pixels in [0, 1]."""
    return float(images.reshape(len(images), -1).astype(np.float32).var(0, dtype=np.float64).mean() / 255**2)


def nearest(images: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The root mean squared difference of each image to the nearest of `among`, pixels in [0, 1]: (rows,)."""
    squared, _ = estimators.nearest(images.reshape(len(images), -1), among.reshape(len(among), -1))
    return np.sqrt(squared / images[0].size) / 255


def _rare_kept(known: dict[str, Attribute], rates: dict[str, np.ndarray]) -> float:
    """NaN where no value is rare."""
    kept: list[float] = []
    for name, attribute in known.items():
        real = attribute.rates(attribute.train)
        rare = (real > 0) & (real <= RARE)
        kept += np.minimum(1, rates[name][rare] / real[rare]).tolist()
    return float(np.mean(kept)) if kept else float("nan")


def _repeats(images: np.ndarray) -> float:
    return 1 - len({image.tobytes() for image in images}) / len(images)


def _sets(metric: str, samples: Rows | None, world: ImageWorld, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """N real training images, N held-out ones, and the first N samples."""
    if samples is None or not len(samples):
        raise StudyError(f"metric {metric!r} needs sampled images, but the policy samples none")
    num = min(rows, len(world.train), len(world.test), len(samples))
    return images_of(world.train)[:num], images_of(world.test)[:num], images_of(samples)[:num]

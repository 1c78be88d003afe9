"""MAUVE: how far the distribution of sampled text is from that of real text, in the features of a language model of the user's.

Pillutla et al., 2021 (arXiv:2102.01454). Texts become the last hidden state of a given causal model at their last token, scaled to
length one and projected on the principal axes that hold 90 % of their variance. k-means on real and sampled texts together gives
two histograms, P (real) and Q (sampled), over k = N / 10 clusters. With R = w P + (1 - w) Q, the curve of

    (exp(-c KL(Q || R)), exp(-c KL(P || R))),   0 < w < 1,   c = 5,

runs from (1, 0) to (0, 1); MAUVE is the area below it, 1 where P = Q and near 0 where they are apart. It depends on the features,
on N and on the clusters found: compare only equal N and features, beside the value of real against real text.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from refeed.core.errors import StudyError
from refeed.core.protocols import Quantity
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.families.language import pretrained
from refeed.families.language.model import LanguageModel
from refeed.families.language.source import LanguageWorld, stories_of

SCALE = 5.0  # c
WEIGHTS = np.linspace(1e-6, 1 - 1e-6, 25)  # w
VARIANCE = 0.9  # kept by the projection
PER_CLUSTER = 10  # texts of each kind to a cluster
BATCH = 32  # texts a forward pass
ROUNDS = 100  # of k-means, at most


@dataclass(frozen=True, kw_only=True)
class Mauve:
    """MAUVE of sampled against held-out real stories, `rows` of each, in the `features` of a model: a folder or a name on the hub.

    `mauve_real` is the same of real training stories: the most to expect. Each is the mean over `estimates` clusterings,
    `mauve_spread` the standard deviation of the first over them. The paper's features are those of GPT-2 large.
    """

    features: str = ""
    rows: int = 1000
    estimates: int = 3
    name: ClassVar[str] = "mauve"
    needs: ClassVar[frozenset[str]] = frozenset({"samples"})
    quantities: ClassVar[tuple[Quantity, ...]] = (
        Quantity(name="mauve", better="higher", reference="mauve_real", meaning="MAUVE of sampled against held-out real stories"),
        Quantity(name="mauve_real", better="neither", role="reference", meaning="the same of real training stories"),
        Quantity(name="mauve_spread", better="neither", meaning="standard deviation of MAUVE over clusterings"),
        Quantity(name="mauve_rows", unit="stories", better="neither", meaning="stories of each kind that MAUVE saw"),
    )
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not self.features:
            raise StudyError(
                "metric mauve needs a language model whose features it looks at.",
                hint='Name a folder or a model of the hub: { kind = "mauve", features = "FOLDER-or-NAME" }',
            )
        if self.rows < 2 * PER_CLUSTER or self.estimates < 1:
            given = f"not {self.rows} and {self.estimates}"
            raise StudyError(f"metric mauve needs rows of at least {2 * PER_CLUSTER} and estimates of at least 1, {given}")

    def identity(self) -> dict[str, object]:
        features = [pretrained.weights_digest(self.features), pretrained.tokenizer_digest(self.features)]
        return {"features": features, "rows": self.rows, "estimates": self.estimates}

    def measure(self, model: LanguageModel, *, world: LanguageWorld, samples: Rows | None, seed: Seed) -> dict[str, float]:
        if samples is None or not len(samples):
            raise StudyError("metric 'mauve' needs sampled stories, but the policy samples none")
        rows = min(self.rows, len(samples), len(world.test), len(world.train))
        if rows < 2 * PER_CLUSTER:
            raise StudyError(f"metric mauve needs {2 * PER_CLUSTER} stories of each kind, and there are {rows}")
        held_out, train, made = (self._seen(part, rows, world) for part in (world.test, world.train, samples))
        values = [mauve(held_out, made, seed=seed / "cluster" / n) for n in range(self.estimates)]
        real = [mauve(held_out, train, seed=seed / "cluster" / n) for n in range(self.estimates)]
        return {
            "mauve": float(np.mean(values)),
            "mauve_real": float(np.mean(real)),
            "mauve_spread": float(np.std(values, ddof=1)) if self.estimates > 1 else 0.0,
            "mauve_rows": float(rows),
        }

    def _seen(self, part: Rows, rows: int, world: LanguageWorld) -> np.ndarray:
        return features(self.features, tuple(world.tokenizer.decode(story) for story in stories_of(part.take(np.arange(rows)))))


@lru_cache(maxsize=4)  # the real stories are the same for every model of a lineage
def features(name: str, texts: tuple[str, ...]) -> np.ndarray:
    """The last hidden state at the last token of each text, as far as the model reads: (texts, width)."""
    import torch

    reader, tokenizer, most = _reader(name)
    coded = [list(ids[:most]) or [tokenizer.end] for ids in (story[:-1].tolist() for story in tokenizer.encode(texts))]
    found = np.zeros((len(coded), reader.config.hidden_size), dtype=np.float32)
    order = np.argsort([len(ids) for ids in coded], kind="stable")
    with torch.inference_mode():
        for chosen in np.array_split(order, -(-len(order) // BATCH)):
            lengths = torch.tensor([len(coded[i]) for i in chosen])
            ids = torch.full((len(chosen), int(lengths.max())), tokenizer.end)
            for row, i in enumerate(chosen):
                ids[row, : lengths[row]] = torch.tensor(coded[i])
            mask = torch.arange(ids.shape[1]) < lengths[:, None]
            hidden = reader(input_ids=ids.to(reader.device), attention_mask=mask.long().to(reader.device)).last_hidden_state
            found[chosen] = hidden[torch.arange(len(chosen)), lengths - 1].cpu().numpy()
    return found


@lru_cache(maxsize=1)
def _reader(name: str) -> tuple[Any, Any, int]:
    from refeed.families.language import nets, vocabulary
    from refeed.families.language.training import device

    net = nets.load_given(pretrained.folder(name)).to(device())
    tokenizer = vocabulary.given(*pretrained.tokenizer_files(name), name=name)
    return net.base_model, tokenizer, int(net.config.max_position_embeddings)


def mauve(real: np.ndarray, made: np.ndarray, *, seed: Seed) -> float:
    """MAUVE of two sets of features, (n, width) and (m, width)."""
    both = np.concatenate([real, made]).astype(np.float64)
    both /= np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-12)
    both -= both.mean(axis=0)
    _, spread, axes = np.linalg.svd(both, full_matrices=False)
    share = np.cumsum(spread**2) / max((spread**2).sum(), 1e-300)
    points = both @ axes[: int(np.searchsorted(share, VARIANCE)) + 1].T
    clusters = max(2, min(len(real), len(made)) // PER_CLUSTER)
    label = k_means(points, clusters, rng=seed.generator())
    counts = [np.bincount(part, minlength=clusters) for part in (label[: len(real)], label[len(real) :])]
    return area(counts[0] / len(real), counts[1] / len(made))


def area(p: np.ndarray, q: np.ndarray) -> float:
    """The area below the divergence curve of two histograms."""
    mixtures = WEIGHTS[:, None] * p + (1 - WEIGHTS[:, None]) * q
    x = np.array([1.0, *np.exp(-SCALE * _divergence(q, mixtures)), 0.0])
    y = np.array([0.0, *np.exp(-SCALE * _divergence(p, mixtures)), 1.0])
    return float(np.trapezoid(y[::-1], x[::-1]))


def _divergence(p: np.ndarray, mixtures: np.ndarray) -> np.ndarray:
    """KL(p || r) of each mixture, nats."""
    inside = p > 0
    return np.asarray((p[inside] * np.log(p[inside] / mixtures[:, inside])).sum(axis=1))


def k_means(points: np.ndarray, clusters: int, *, rng: np.random.Generator) -> np.ndarray:
    """The cluster of each point: Lloyd's rounds from a k-means++ start (Arthur and Vassilvitskii, 2007)."""
    centres = points[rng.integers(len(points))][None]
    nearest = ((points - centres[0]) ** 2).sum(axis=1)
    while len(centres) < clusters:
        weights = nearest / nearest.sum() if nearest.sum() > 0 else np.full(len(points), 1 / len(points))
        centres = np.concatenate([centres, points[rng.choice(len(points), p=weights)][None]])
        nearest = np.minimum(nearest, ((points - centres[-1]) ** 2).sum(axis=1))
    label = np.full(len(points), -1)
    for _ in range(ROUNDS):
        distances = (centres**2).sum(axis=1) - 2 * points @ centres.T  # less |point|^2, which is the same for all centres
        before, label = label, distances.argmin(axis=1)
        if np.array_equal(before, label):
            break
        sums, counts = np.zeros_like(centres), np.bincount(label, minlength=clusters)
        np.add.at(sums, label, points)
        centres = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)
    return label

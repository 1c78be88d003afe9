"""What a fitted Gaussian has lost, in closed form: its moments, and its divergences from the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from refeed.core.errors import Stopped
from refeed.core.protocols import Quantity, World
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.families.gaussian.learner import Gaussian, GaussianModel
from refeed.families.gaussian.sampler import Draws
from refeed.families.gaussian.source import Normal


@dataclass(frozen=True, kw_only=True)
class Moments:
    """The fitted variance (mean over directions) and the squared error of the fitted mean (likewise); the truth has 1 and 0."""

    name: ClassVar[str] = "moments"
    needs: ClassVar[frozenset[str]] = frozenset({"moments"})
    quantities: ClassVar[tuple[Quantity, ...]] = (
        Quantity(name="variance", better="higher", role="diversity", meaning="fitted variance over the true one"),
        Quantity(name="mean_error", better="lower", role="quality", meaning="squared error of the fitted mean, per direction"),
    )
    version: ClassVar[int] = 1

    def measure(self, model: GaussianModel, *, world: World, samples: Rows | None, seed: Seed) -> dict[str, float]:
        return {"variance": float(np.trace(model.covariance)) / len(model.mean), "mean_error": float((model.mean**2).mean())}

    def laws(self, policy: str, *, source: Normal, learner: Gaussian, sampler: Draws) -> list[dict[str, Any]]:
        """The exact means under `policy`, as laws of the theory package; they hold in every direction of any dimension."""
        sizes: dict[str, Any] = {"T": source.rows, "temperature": sampler.temperature}
        chosen = {"estimator": learner.estimator}
        named = {
            "replace": [("variance", "replace_variance", sizes | chosen)],
            "accumulate": [
                ("variance", "accumulate_variance", sizes | chosen),
                ("mean_error", "accumulate_mean_error", sizes | chosen),
            ],
        }
        if learner.estimator == "ml":
            bounded = sizes | {"M": source.rows}
            for title, law in (("accumulate-subsample", "accumulate_subsample"), ("reservoir", "reservoir")):
                named[title] = [("variance", f"{law}_variance", bounded), ("mean_error", f"{law}_mean_error", bounded)]
            mixed = {"n_real": source.rows, "n_synthetic": source.rows, "temperature": sampler.temperature}
            named["fixed-real"] = [("variance", "fixed_real_variance", mixed)]
        return [{"quantity": q, "law": f"gaussian.{law}", "parameters": given} for q, law, given in named.get(policy, [])]


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """KL divergences in nats: of the truth from the model (the excess log-loss on real data) and of the model from the truth."""

    name: ClassVar[str] = "divergence"
    needs: ClassVar[frozenset[str]] = frozenset({"moments"})
    quantities: ClassVar[tuple[Quantity, ...]] = (
        Quantity(name="kl_truth_model", unit="nats", role="risk", meaning="excess log-loss of the model on real data"),
        Quantity(name="kl_model_truth", unit="nats", role="quality", meaning="how unlikely the model's rows are under the truth"),
    )
    version: ClassVar[int] = 1

    def measure(self, model: GaussianModel, *, world: World, samples: Rows | None, seed: Seed) -> dict[str, float]:
        d, square = len(model.mean), float(model.mean @ model.mean)
        values, vectors = np.linalg.eigh(model.covariance)
        if values[0] <= 1e-280 or values[0] < 1e-14 * values[-1]:
            raise Stopped("diverged", "the fitted covariance is singular: the log-loss on real data is infinite")
        logdet = float(np.log(values).sum())
        distance = float(((vectors.T @ model.mean) ** 2 / values).sum())
        return {
            "kl_truth_model": (float((1 / values).sum()) - d + distance + logdet) / 2,
            "kl_model_truth": (float(values.sum()) - d + square - logdet) / 2,
        }

    def laws(self, policy: str, *, source: Normal, learner: Gaussian, sampler: Draws) -> list[dict[str, Any]]:
        """The exact means under replace with the unbiased covariance."""
        if policy != "replace" or learner.estimator != "unbiased" or sampler.temperature != 1.0:
            return []
        least = {"kl_truth_model": source.dimension + 3, "kl_model_truth": source.dimension + 1}
        parameters = {"d": source.dimension, "T": source.rows}
        return [
            {"quantity": name, "law": f"gaussian.replace_{name}", "parameters": parameters}
            for name, rows in least.items()
            if source.rows >= rows
        ]

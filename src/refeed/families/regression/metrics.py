"""The excess risk of a linear model, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from refeed.core.protocols import Quantity
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.families.regression.learner import LeastSquares, LinearModel
from refeed.families.regression.sampler import Relabel
from refeed.families.regression.source import Linear, LinearWorld


@dataclass(frozen=True, kw_only=True)
class ExcessRisk:
    """E_x (x.w - x.w*)^2 = |w - w*|^2 for x ~ N(0, I): the test error beyond the noise, exact, without test rows."""

    name: ClassVar[str] = "excess_risk"
    needs: ClassVar[frozenset[str]] = frozenset({"coefficients"})
    quantities: ClassVar[tuple[Quantity, ...]] = (
        Quantity(name="excess_risk", unit="squared label", role="risk", meaning="test error beyond the label noise"),
    )
    version: ClassVar[int] = 1

    def measure(self, model: LinearModel, *, world: LinearWorld, samples: Rows | None, seed: Seed) -> dict[str, float]:
        error = model.coefficients - world.coefficients
        return {"excess_risk": float(error @ error)}

    def laws(self, policy: str, *, source: Linear, learner: object, sampler: Relabel, generations: int) -> list[dict[str, Any]]:
        """The exact mean under `policy` (its name in the catalogue), as a law of the theory package, where there is one."""
        if not isinstance(learner, LeastSquares) or source.rows < source.dimension + 2:
            return []
        parameters: dict[str, Any] = {"d": source.dimension, "T": source.rows, "s": source.noise}
        fresh = sampler.design == "fresh"
        if policy == "replace":
            law = "regression.replace"  # the same for both designs: every increment has its own noise
        elif policy == "accumulate":
            law = "regression.accumulate" if fresh else "regression.accumulate_same_x"
        elif policy == "replace-multiple" and fresh:
            law = "regression.replace"
            parameters["T"] = [source.rows * generation for generation in range(1, generations + 1)]
        else:
            return []
        return [{"quantity": "excess_risk", "law": law, "parameters": parameters}]

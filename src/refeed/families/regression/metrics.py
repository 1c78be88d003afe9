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

    def laws(self, policy: str, *, source: Linear, learner: object, sampler: Relabel) -> list[dict[str, Any]]:
        """The exact mean under `policy` (its name in the catalogue), as a law of the theory package, where there is one."""
        if not isinstance(learner, LeastSquares) or source.rows < source.dimension + 2:
            return []
        names = {"replace": "replace", "accumulate": "accumulate", "replace-multiple": "replace_multiple"}
        if policy not in names:
            return []
        law = f"regression.{names[policy]}{'_same_x' if sampler.design == 'same' else ''}"
        parameters = {"d": source.dimension, "T": source.rows, "s": source.noise}
        return [{"quantity": "excess_risk", "law": law, "parameters": parameters}]

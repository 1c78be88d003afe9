"""The excess risk of a linear model, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from refeed.core.protocols import Quantity
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.families.regression.learner import LeastSquares, LinearModel, Ridge
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
        """The mean under `policy` (its name in the catalogue), as a law of the theory package, where there is one."""
        if not isinstance(source, Linear):  # a source from elsewhere
            return []
        d, rows = source.dimension, source.rows
        given: dict[str, Any] = {"d": d, "T": rows, "s": source.noise}
        if isinstance(learner, Ridge):
            if policy not in ("replace", "accumulate") or sampler.design != "fresh":
                return []
            given |= {"ridge": learner.penalty, "signal": source.signal}
            return [{"quantity": "excess_risk", "law": f"regression.ridge_{policy}", "parameters": given}]
        if not isinstance(learner, LeastSquares) or rows < d + 2:
            return []
        mixed = {"d": d, "n_real": rows, "n_synthetic": rows, "s": source.noise}
        same = {"replace": "replace_same_x", "accumulate": "accumulate_same_x", "replace-multiple": "replace_multiple_same_x"}
        fresh = {"replace": "replace", "accumulate": "accumulate", "replace-multiple": "replace_multiple"}
        fresh |= {"fresh-real": "fresh", "fixed-real": "fixed_real_asymptotic"}
        if rows >= 2 * d:
            fresh |= {"accumulate-subsample": "accumulate_subsample"}
        law = (same if sampler.design == "same" else fresh).get(policy)
        if law is None:
            return []
        parameters = mixed | ({"T1": rows} if law == "fresh" else {}) if law in ("fresh", "fixed_real_asymptotic") else given
        return [{"quantity": "excess_risk", "law": f"regression.{law}", "parameters": parameters}]

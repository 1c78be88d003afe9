"""The excess risk of a linear model, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from refeed.core.protocols import Quantity
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.families.regression.learner import LinearModel
from refeed.families.regression.source import LinearWorld


@dataclass(frozen=True, kw_only=True)
class ExcessRisk:
    """E_x (x.w - x.w*)^2 = |w - w*|^2 for x ~ N(0, I): the test error beyond the noise, exact, without test rows."""

    name: ClassVar[str] = "excess_risk"
    needs: ClassVar[frozenset[str]] = frozenset({"coefficients"})
    quantities: ClassVar[tuple[Quantity, ...]] = (
        Quantity(name="excess_risk", unit="squared label", role="risk", meaning="test error beyond the label noise"),
    )
    version: ClassVar[int] = 1

    def measure(
        self, model: LinearModel, *, world: LinearWorld, samples: Rows | None, seed: Seed
    ) -> dict[str, float]:
        error = model.coefficients - world.coefficients
        return {"excess_risk": float(error @ error)}

"""What a counting model has forgotten, against the known truth: exact, without samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.special import entr, rel_entr

from refeed.core.protocols import Quantity
from refeed.core.rows import Rows
from refeed.core.seeds import Seed
from refeed.families.categorical.learner import ChainModel, Frequencies, SymbolModel
from refeed.families.categorical.sampler import Draws
from refeed.families.categorical.source import SymbolWorld, Zipf


@dataclass(frozen=True, kw_only=True)
class Symbols:
    """Divergence from the truth, symbols still alive, true probability of the lost ones, and what is left of the diversity."""

    name: ClassVar[str] = "symbols"
    needs: ClassVar[frozenset[str]] = frozenset({"probabilities"})
    quantities: ClassVar[tuple[Quantity, ...]] = (
        Quantity(name="kl_model_truth", unit="nats", role="risk", meaning="how unlikely the model's symbols are under the truth"),
        Quantity(name="survivors", unit="symbols", better="higher", role="tail", meaning="symbols of probability above 0"),
        Quantity(name="missing_mass", role="tail", meaning="true probability of the symbols that the model has lost"),
        Quantity(name="heterozygosity", better="higher", role="diversity", meaning="1 - sum p^2, over that of the truth"),
        Quantity(name="entropy", unit="nats", better="higher", role="diversity", meaning="entropy of the fitted probabilities"),
    )
    version: ClassVar[int] = 1

    def measure(self, model: SymbolModel, *, world: SymbolWorld, samples: Rows | None, seed: Seed) -> dict[str, float]:
        p, truth = model.probabilities, world.probabilities
        return {
            "kl_model_truth": float(rel_entr(p, truth).sum()),
            "survivors": float((p > 0).sum()),
            "missing_mass": float(truth[p == 0].sum()),
            "heterozygosity": float((1 - p @ p) / (1 - truth @ truth)),
            "entropy": float(entr(p).sum()),
        }

    def laws(self, policy: str, *, source: Zipf, learner: Frequencies, sampler: Draws) -> list[dict[str, Any]]:
        """The exact means under replace and accumulate by maximum likelihood at temperature 1."""
        if policy not in ("replace", "accumulate") or learner.smoothing or sampler.temperature != 1.0:
            return []
        law = {"num_symbols": source.num_symbols, "beta": source.beta, "T": source.rows}
        named = {
            "replace": [
                ("heterozygosity", "categorical.heterozygosity_replace", {"T": source.rows}),
                ("survivors", "categorical.survivors", law),
                ("missing_mass", "categorical.missing_mass_branching", law),
            ],
            "accumulate": [
                ("heterozygosity", "exponential_family.variance_accumulate", {"T": source.rows, "v2": -1}),
                ("survivors", "categorical.survivors_accumulate", law),
            ],
        }
        return [{"quantity": quantity, "law": name, "parameters": given} for quantity, name, given in named[policy]]


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The same for an n-gram of order 1 or more, its contexts weighed by how often the true chain visits them."""

    name: ClassVar[str] = "chain"
    needs: ClassVar[frozenset[str]] = frozenset({"chain", "transitions"})
    quantities: ClassVar[tuple[Quantity, ...]] = (
        Quantity(name="kl_rate", unit="nats/symbol", role="risk", meaning="divergence of the model's next symbol from the truth's"),
        Quantity(
            name="transitions_alive", unit="transitions", better="higher", role="tail", meaning="transitions of probability above 0"
        ),
        Quantity(name="missing_mass", role="tail", meaning="true probability of the transitions that the model has lost"),
        Quantity(name="entropy_rate", unit="nats/symbol", better="higher", role="diversity", meaning="entropy of the next symbol"),
    )
    version: ClassVar[int] = 1

    def measure(self, model: ChainModel, *, world: SymbolWorld, samples: Rows | None, seed: Seed) -> dict[str, float]:
        assert world.transitions is not None
        symbols = len(world.transitions)
        visits = stationary(world.transitions)
        while len(visits) < len(model.transitions):  # of longer contexts, by the chain rule
            visits = (visits[:, None] * world.transitions[np.arange(len(visits)) % symbols]).ravel()
        truth = world.transitions[np.arange(len(visits)) % symbols]
        return {
            "kl_rate": float(visits @ rel_entr(model.transitions, truth).sum(axis=1)),
            "transitions_alive": float((model.transitions > 0).sum()),
            "missing_mass": float(visits @ (truth * (model.transitions == 0)).sum(axis=1)),
            "entropy_rate": float(visits @ entr(model.transitions).sum(axis=1)),
        }


def stationary(transitions: np.ndarray) -> np.ndarray:
    """How often a chain visits each symbol in the long run; all its transitions must be possible."""
    size = len(transitions)
    equations = np.vstack([transitions.T - np.eye(size), np.ones(size)])
    return np.linalg.lstsq(equations, np.append(np.zeros(size), 1.0), rcond=None)[0]

"""Laws by name: what is known in closed form about feedback loops, each with what it claims and what it assumes."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

Kind = Literal["exact", "bound", "classical limit", "asymptotic"]

PAPER = "Gerstgrasser et al., Is Model Collapse Inevitable?, arXiv:2404.01413"
MODULES = {  # of this package; each registers its laws when it is imported. Where they are derived, and the work they stem from
    "mean": ("families.md", PAPER),
    "compositions": ("families.md", PAPER),
    "regression": ("regression.md", PAPER),
    "regression_variance": ("regression.md", PAPER),
    "regression_fresh": ("regression.md", "He, Xu, Cheng, arXiv:2502.18049; Alemohammad et al., arXiv:2307.01850"),
    "regression_fixed_real": ("regression.md", "Alemohammad et al., arXiv:2307.01850"),
    "regression_min_norm": ("regression.md", "Dohmatob, Feng, Kempe, arXiv:2402.07712"),
    "regression_ridge": ("regression.md", "Dohmatob, Feng, Kempe, arXiv:2402.07712"),
    "regression_ridge_variance": ("regression.md", "Dohmatob, Feng, Kempe, arXiv:2402.07712"),
    "exponential_family": ("families.md", "Dey, Donoho, arXiv:2410.22812"),
    "gaussian": ("families.md", "Shumailov et al., arXiv:2305.17493; Kazdan et al., arXiv:2410.16713"),
    "gaussian_pools": ("families.md", "Kazdan et al., arXiv:2410.16713"),
    "categorical": ("families.md", "Dohmatob et al., arXiv:2402.07043"),
    "kde": ("families.md", "Kazdan et al., arXiv:2410.16713"),
}


class TheoryError(ValueError):
    """A law does not exist, was asked with other parameters than it has, or does not hold for their values."""


@dataclass(frozen=True, kw_only=True)
class Law:
    """A named formula. `kind` says how far it may be trusted:

    *exact* at the stated sizes; *bound*: never below the true value; *classical limit*: many more rows than parameters;
    *asymptotic*: rows and parameters, or generations, grow together.
    """

    name: str
    kind: Kind
    summary: str
    function: Callable[..., Any]

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self.function).parameters)

    @property
    def reference(self) -> str:
        """Where the law is derived, and the work that its setting comes from."""
        page, work = MODULES[self.function.__module__.rpartition(".")[2]]
        return f"docs/theory/{page}; {work}"

    @property
    def required(self) -> tuple[str, ...]:
        """The parameters without a default."""
        parameters = inspect.signature(self.function).parameters.values()
        return tuple(parameter.name for parameter in parameters if parameter.default is parameter.empty)


_LAWS: dict[str, Law] = {}


def law(name: str, *, kind: Kind) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a keyword-only function as the law `name`; the first paragraph of its docstring is the law's summary."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        if name in _LAWS:
            raise TheoryError(f"two laws are called {name!r}")
        summary = " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())
        _LAWS[name] = Law(name=name, kind=kind, summary=summary, function=function)
        return function

    return register


@lru_cache(maxsize=1)
def _load() -> None:
    for module in MODULES:
        importlib.import_module(f"refeed.theory.{module}")


def laws() -> dict[str, Law]:
    """Every law by name, in alphabetical order."""
    _load()
    return dict(sorted(_LAWS.items()))


def find(name: str) -> Law:
    """The law called `name`; a TheoryError with the nearest names where there is none."""
    known = laws()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        raise TheoryError(f"no law is called {name!r}" + (f"; did you mean {' or '.join(near)}?" if near else ""))
    return known[name]


def evaluate(name: str, **parameters: Any) -> Any:
    """The value of a law: a float, or an array with one entry a generation where the law has a curve.

    `n` is the number of generations: a number gives the curve 1..n, a list the values at those generations.

    >>> evaluate("regression.replace", d=10, T=100, n=3).round(4)
    array([0.1124, 0.2247, 0.3371])
    """
    found = find(name)
    unknown = [key for key in parameters if key not in found.parameters]
    missing = [key for key in found.required if key not in parameters]
    if unknown or missing:
        said = [f"has no parameter {key!r}" for key in unknown] + [f"needs {key!r}" for key in missing]
        raise TheoryError(f"{name} {', '.join(said)}; its parameters are {', '.join(found.parameters)}")
    for key, value in parameters.items():
        _check_number(key, value)
    return found.function(**parameters)


WHOLE = ("d", "n", "K", "num_symbols")


def _check_number(key: str, value: Any) -> None:
    """No law has a value at infinity or NaN, nor for half a feature."""
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        return  # text, None: the law's own business
    if value is not None and not np.isfinite(array).all():
        raise TheoryError(f"{key} must be finite, not {value}")
    if value is not None and key in WHOLE and (array != np.round(array)).any():
        raise TheoryError(f"{key} must be whole, not {value}")


def require(condition: bool, message: str) -> None:
    """Raise TheoryError unless a law's assumption holds; the message names the assumption and the values seen."""
    if not condition:
        raise TheoryError(message)

"""Every law against independent values, where the reference file lies beside the repository."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest

from refeed.theory import TheoryError, evaluate, laws

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "theory_vectors.json"
ALL = json.loads(REFERENCE.read_text())["vectors"] if REFERENCE.exists() else []
VECTORS = [vector for vector in ALL if vector["law"] in laws()]


@pytest.mark.skipif(not VECTORS, reason="theory_vectors.json is not beside the repository")
def test_reference_covers_the_laws_of_the_paper():
    assert {"regression.replace", "regression.accumulate"} <= {vector["law"] for vector in VECTORS}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_value(vector):
    value = evaluate(vector["law"], **vector["params"])
    if np.isscalar(vector["value"]) and np.ndim(value):
        value = value[-1]
    rtol = max(vector["rtol"], 1e-11)
    np.testing.assert_allclose(value, vector["value"], rtol=rtol)
    if "mc_se" in vector:
        assert np.all(np.abs(np.asarray(vector["mc_mean"]) - value) <= 4 * np.asarray(vector["mc_se"]))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_schedules_may_be_lists_and_nothing_is_infinite(vector):
    """A constant list by generation is the number, where a law has a curve; infinity and NaN are refused by name."""
    given, law = vector["params"], laws()[vector["law"]]
    last = int(np.max(given["n"])) if "n" in given else 0
    for name in {"T", "s"} & set(given) if last else ():
        if np.ndim(given[name]) == 0 and "Schedule" in str(inspect.signature(law.function).parameters[name].annotation):
            np.testing.assert_allclose(
                evaluate(law.name, **given | {name: [given[name]] * last}), evaluate(law.name, **given), rtol=1e-9
            )
    for name, value in given.items():
        if isinstance(value, int | float):
            for bad in (np.inf, np.nan):
                with pytest.raises(TheoryError, match=f"{name} must be finite"):
                    evaluate(law.name, **given | {name: bad})

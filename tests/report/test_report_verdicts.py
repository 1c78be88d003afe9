"""Verdicts say yes, no or cannot say for the right reasons."""

import numpy as np
import pyarrow as pa
import pytest
from builder import regression_case, results

from refeed.report.results import Results
from refeed.report.verdicts import verdicts


def answers(made, case):
    return {(v.label, v.quantity, v.policy): v for v in verdicts(made, case)}


def made_of(curves, *, better="lower", role="risk"):
    """A study with one quantity and one array (seeds, generations) a policy."""
    case = regression_case("c", d=10, T=100, s=1.0)
    case["laws"] = {}
    case["metrics"][0]["quantities"][0] |= {"better": better, "role": role}
    seeds, generations = next(iter(curves.values())).shape
    base = results(cases=[case], seeds=seeds, generations=generations, policies=tuple(curves))
    scores = [
        {"case": "c", "policy": policy, "seed": seed, "generation": g + 1, "quantity": "excess_risk",
         "value": float(values[seed, g]), "unit": "1"}
        for policy, values in curves.items() for seed in range(seeds) for g in range(generations)
    ]  # fmt: skip
    return Results(base.study, pa.Table.from_pylist(scores), base.composition, base.outcomes)


RNG = np.random.default_rng(1)
N = np.arange(1.0, 11)
WOBBLE = 1 + 0.004 * RNG.standard_normal((5, 10))
CURVES = {"replace": N * WOBBLE, "accumulate": np.cumsum(1 / N**2) * WOBBLE, "fresh": WOBBLE}


def test_linear_growth_diverges_and_a_bounded_rise_does_not():
    found = answers(made_of(CURVES), "c")
    said = {key[::2]: verdict.answer for key, verdict in found.items() if verdict.definition.role == "risk"}
    assert said == {
        ("risk rises", "replace"): "yes", ("risk rises", "accumulate"): "yes", ("risk rises", "fresh"): "no",
        ("risk diverges", "replace"): "yes", ("risk diverges", "accumulate"): "no", ("risk diverges", "fresh"): "no",
        ("better than replace", "accumulate"): "yes", ("better than replace", "fresh"): "yes",
    }  # fmt: skip


@pytest.mark.parametrize(("seeds", "generations"), [(1, 5), (3, 1), (1, 1)])
def test_too_little_data_cannot_say(seeds, generations):
    made = results(seeds=seeds, generations=generations)
    assert {v.answer for case in made.cases for v in verdicts(made, case)} == {"cannot say", "not measured"}


def test_four_generations_do_not_show_divergence():
    found = answers(made_of({name: values[:, :4] for name, values in CURVES.items()}), "c")
    assert found["risk diverges", "excess_risk", "replace"].answer == "cannot say"


def test_direction_follows_better():
    found = answers(made_of({"replace": 1 / CURVES["replace"]}, better="higher", role="tail"), "c")
    assert found["tails are lost", "excess_risk", "replace"].answer == "yes"
    assert found["risk rises", "", "replace"].answer == "not measured"


def test_quality_alone_is_no_evidence():
    found = answers(made_of({"replace": CURVES["replace"]}, better="higher", role="quality"), "c")
    verdict = found["quality falls", "excess_risk", "replace"]
    assert verdict.answer == "cannot say"
    assert "quality alone may improve" in verdict.sentence


def test_all_zero_is_no_change():
    found = answers(made_of({"replace": np.zeros((3, 5))}, role="audit"), "c")
    assert found["rows repeat", "excess_risk", "replace"].answer == "no"


def test_every_definition_is_listed():
    labels = {verdict.label for verdict in verdicts(results(), "regression")}
    assert labels == {
        "risk rises", "risk diverges", "better than replace", "tails are lost", "diversity shrinks", "support shrinks",
        "modes are lost", "quality falls", "rows repeat",
    }  # fmt: skip


def test_sentences_hold_number_interval_and_lineages_left_out():
    found = answers(results(ended=("language", "replace", 1, 3)), "language")
    sentence = found["risk rises", "cross_entropy", "replace"].sentence
    assert "times that of generation 1 (95 % t interval" in sentence
    assert "2 lineages)" in sentence
    assert "1 lineage ended early and is left out" in sentence
    assert "standard errors" in found["better than replace", "cross_entropy", "accumulate"].sentence

"""`refeed theory` as a user meets it."""

import json

import pytest
from typer.testing import CliRunner

from refeed.cli.app import app
from refeed.core.errors import UserError
from refeed.theory import evaluate, laws


def refeed(*arguments):
    return CliRunner().invoke(app, ["theory", *arguments])


def test_the_list_has_a_line_and_a_kind_for_every_law():
    lines = refeed().stdout.splitlines()
    assert len(lines) == len(laws())
    assert all(len(line) < 170 for line in lines)
    assert [entry["law"] for entry in json.loads(refeed("--json").stdout)] == list(laws())


def test_a_scalar_n_is_the_curve():
    lines = refeed("regression.accumulate", "d=10", "T=100", "n=3").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    assert float(lines[2].split()[1]) == pytest.approx(evaluate("regression.accumulate", d=10, T=100, n=3)[2])


@pytest.mark.parametrize("rows", ["T=[60,20,40]", "T=60,20,40", "T=60, 20, 40"])
def test_lists_by_generation(rows):
    found = json.loads(refeed("regression.accumulate", "d=10", rows, "s=1,2,1", "--json").stdout)
    assert found["value"] == pytest.approx(evaluate("regression.accumulate", d=10, T=[60, 20, 40], s=[1, 2, 1]).tolist())
    assert (found["law"], found["kind"]) == ("regression.accumulate", "exact")


def test_numbers_text_and_matrices():
    assert refeed("mean.accumulate_limit").stdout.startswith("1.6449")
    assert refeed("regression.fresh_cost_rule", "cost_ratio=4").stdout.split() == ["0.5", "2", "3"]
    assert float(refeed("gaussian.accumulate_variance", "T=5", "n=[2]", "estimator=ml").stdout.split()[1]) == 0.76
    shifted = refeed("regression.accumulate", "d=2", "T=9", "n=[1]", "Sigma_test=[[2,0],[0,0]]").stdout.split()[1]
    assert float(shifted) == pytest.approx(2 / 6)
    formula = refeed("regression.ridge_replace_asymptotic", "d=40", "T=60", "ridge=10", "Sigma_diag=5/k", "w=k^(-1/2)", "n=[1]")
    assert float(formula.stdout.split()[1]) == pytest.approx(0.478941300152)


def test_a_name_alone_is_described():
    text = refeed("regression.fresh").stdout
    assert "Needs d, n_real, n_synthetic, n; also takes T1, s, s_synthetic." in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("regression.acumulate", "d=1"), "did you mean regression.accumulate"),
        (("regression.replace", "d=10", "T=11", "n=2"), "T >= d + 2 is needed"),
        (("regression.replace", "d=10", "T"), "'T' is not NAME=VALUE"),
        (("regression.replace", "d=10", "T=100", "rows=3"), "has no parameter 'rows'"),
        (("regression.replace", "d=ten", "T=100", "n=3"), "cannot take these values"),
    ],
)
def test_a_mistake_is_one_clear_error(arguments, message):
    error = refeed(*arguments).exception
    assert isinstance(error, UserError)
    assert error.exit_code == 2
    assert message in str(error)

"""`refeed advise` as a user meets it."""

import json

import pytest
from typer.testing import CliRunner

from refeed.cli.app import app
from refeed.core.errors import UserError


def refeed(*arguments):
    return CliRunner().invoke(app, ["advise", *map(str, arguments)])


def test_a_table_a_schedule_the_rule_and_a_figure(tmp_path):
    figure = tmp_path / "plan.svg"
    budget = ["--generated", 200, "--compute", 2000, "--minimum", 10, "--cost-ratio", 10, "--plan", "100,50,50,50,50"]
    done = refeed("--real", 100, "--rows", 50, "--generations", 5, *budget, "--plot", figure)
    assert done.exit_code == 0, done.exception
    for text in ("accumulate", "100, 170, then 3 x 10", "100, 360, then 3 x 10", "% worse than the best", "The rule:", "Assumes:"):
        assert text in done.stdout
    assert figure.read_text().startswith("<svg")


def test_json():
    found = json.loads(refeed("--real", 100, "--storage", 150, "--json").stdout)
    assert all(entry["stored"] <= 150 for entry in found["policies"])
    assert len(found["policies"][0]["error"]) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--real", 5, "--dimension", 9), "real >= dimension"),
        (("--real", 50, "--plan", "60,10"), "must start with the 50 real rows"),
        (("--real", 50, "--plan", "50,x"), "takes whole numbers"),
        (("--real", 50, "--plot", "plan.png"), "must end in .svg"),
        (("--real", 50, "--generated", 3), "is below 45"),
    ],
)
def test_a_mistake_is_one_clear_error(arguments, message):
    error = refeed(*arguments).exception
    assert isinstance(error, UserError)
    assert message in str(error)

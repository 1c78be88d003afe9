"""`refeed forecast` as a user meets it: from a CSV file and from a finished study."""

import json

import pytest
from typer.testing import CliRunner

from refeed.cli.app import app
from refeed.core.errors import UserError

LONG = "setting,iteration,test_loss\n" + "".join(
    f"{name},{g},{1 + slope * g}\n" for name, slope in (("A", 0.5), ("B", 0.1)) for g in range(6)
)


def refeed(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture
def losses(tmp_path):
    path = tmp_path / "losses.csv"
    path.write_text("generation,loss,seed\n" + "".join(f"{g},{g + 0.1 * s},{s}\n" for s in range(2) for g in range(1, 6)))
    return path


def test_a_table_and_a_verdict(losses):
    done = refeed("forecast", losses, "--policy", "replace", "--to", 12)
    assert done.exit_code == 0, done.exception
    assert "the mean of 2 lineages" in done.stdout
    assert "Collapse: collapse" in done.stdout


def test_json_and_one_curve_of_several(tmp_path):
    path = tmp_path / "many.csv"
    path.write_text(LONG)
    found = json.loads(refeed("forecast", path, "--to", 9, "--where", "setting=A", "--observe", 5, "--json").stdout)
    assert (found["observed"], found["lineages"], found["policy"]) == (5, 1, None)
    assert [row["generation"] for row in found["ahead"]] == [6, 7, 8, 9]
    low, high = found["ahead"][0]["95%"]
    assert low < 3.5 < high


def test_a_finished_study(tmp_path):
    ran = refeed("run", "gaussian", "--scale", "tiny", "--workspace", tmp_path, "--set", 'grid={"source.rows"=[30]}')
    assert ran.exit_code == 0, ran.exception
    name = next((tmp_path / "studies").iterdir()).name
    done = refeed("forecast", name, "--workspace", tmp_path, "--policy", "accumulate", "--to", 8, "--quantity", "variance")
    assert done.exit_code == 0, done.exception
    with_no_policy = refeed("forecast", name, "--workspace", tmp_path, "--to", 8).exception
    assert "more than one policy" in str(with_no_policy)
    assert "--to is missing" in str(refeed("forecast", name, "--workspace", tmp_path).exception)
    check = ("forecast", name, "--workspace", tmp_path, "--check", "--quantity", "variance", "--lineages", 2)
    done = refeed(*check, "--observe", 3)
    assert done.exit_code == 0, done.exception
    assert "+-: one standard error" in done.stdout
    page = (tmp_path / "studies" / name / "forecast-check.html").read_text()
    assert "<svg" in page
    assert "accumulate-subsample" in page
    rows = json.loads(refeed(*check, "--observe", 3, "--policy", "accumulate", "--json").stdout)
    assert [(row["told"], row["observe"], row["to"], row["lineages"]) for row in rows] == [(True, 3, 5, 2), (False, 3, 5, 2)]
    assert "no lineage that can be checked" in str(refeed(*check, "--observe", 5).exception)
    assert "no case 'none'" in str(refeed(*check, "--case", "none").exception)


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("x,loss\n1,2\n", (), "no column for the generation"),
        ("generation,loss\n1,2\n2,3\n", (), "at least 3"),
        ("generation,loss\n1,2\n2,a\n3,3\n", ("--column", "loss"), "'a', which is not a number"),
        ("generation,loss\n1,2\n1,3\n3,3\n", (), "gives generation 1 twice"),
        ("generation,loss\n1,2\n2,3\n3,3\n", ("--policy", "replaced"), "no growth shape is known"),
        ("generation,loss\n1,2\n2,3\n3,3\n", ("--where", "a=b"), "--where takes COLUMN=VALUE"),
        ("generation,a,b\n1,2,3\n2,3,3\n3,3,4\n", (), "no column 'loss'"),
        (LONG, (), "holds several curves: setting is A, B"),
        (None, (), "there is no file or finished study"),
    ],
)
def test_a_mistake_is_one_clear_error(tmp_path, text, arguments, message):
    path = tmp_path / "curve.csv"
    if text is not None:
        path.write_text(text)
    error = refeed("forecast", path, "--to", 9, *arguments).exception
    assert isinstance(error, UserError)
    assert message in str(error)

"""The results folder: loaded as it was saved, and clear about what is wrong with it."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from builder import grid, results

from refeed.core.errors import UserError
from refeed.report import Results, summary_rows


def test_save_and_load_round_trip(tmp_path):
    before = results()
    before.save(tmp_path)
    after = Results.load(tmp_path)
    for name in ("scores", "composition", "outcomes", "ledger"):
        assert getattr(before, name).equals(getattr(after, name))
    assert (after.study, after.exhibits, after.run) == (before.study, before.exhibits, before.run)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "composition.parquet", "exhibits.json", "ledger.parquet", "outcomes.parquet", "run.json", "scores.parquet", "study.json",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["study.json", "scores.parquet", "outcomes.parquet"])
def test_missing_file_is_named(tmp_path, name):
    results().save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"not a results folder: it has no {name}"):
        Results.load(tmp_path)


@pytest.mark.parametrize("name", ["run.json", "scores.parquet"])
def test_damaged_file_is_named(tmp_path, name):
    results().save(tmp_path)
    (tmp_path / name).write_bytes(b"{ half a")
    with pytest.raises(UserError, match=f"{name} cannot be read"):
        Results.load(tmp_path)


def test_missing_column_is_named():
    good = results()
    with pytest.raises(UserError, match="'scores' of these results has no column 'value'"):
        Results(good.study, good.scores.drop_columns(["value"]), good.composition, good.outcomes)


def test_summary_is_the_t_interval_and_the_median():
    made = results()
    row = next(row for row in made.summary("excess_risk") if row.policy == "replace" and row.generation == 5)
    frame = made.frame().to_pylist()
    at = ("regression", "replace", 5, "excess_risk")
    values = [r["value"] for r in frame if (r["case"], r["policy"], r["generation"], r["quantity"]) == at]
    half = 4.302653 * np.std(values, ddof=1) / np.sqrt(3)
    assert (row.num_seeds, row.mean, row.median) == (3, pytest.approx(np.mean(values)), np.median(values))
    assert (row.low, row.high) == pytest.approx((np.mean(values) - half, np.mean(values) + half))


def test_non_finite_scores_count_as_not_measured():
    made = results(seeds=2)
    values = made.scores["value"].to_pylist()
    broken = [float("nan") if i % 7 == 0 else float("inf") if i % 11 == 0 else value for i, value in enumerate(values)]
    scores = made.scores.set_column(5, "value", pa.array(broken))
    again = Results(made.study, scores, made.composition, made.outcomes, made.exhibits, made.run)
    assert all(np.isfinite(row.mean) for row in again.summary("excess_risk"))


def test_summary_rows_hold_theory_and_outcomes():
    rows = {(row.case, row.policy): row for row in summary_rows(results(ended=("language", "replace", 1, 3)))}
    regression, language = rows["regression", "replace"], rows["language", "replace"]
    assert regression.theory == pytest.approx(5 * 10 / 89)
    assert (regression.theory_kind, regression.outcomes) == ("exact", {"completed": 3})
    assert regression.change.value == pytest.approx(np.exp(np.log(regression.change.low * regression.change.high) / 2))
    assert (language.outcomes, language.num_early, language.change.n) == ({"completed": 2, "non-finite": 1}, 1, 2)


def test_one_generation_has_no_change():
    assert all(row.change is None and row.first == row.last for row in summary_rows(results(generations=1)))


def test_nothing_measured_is_no_crash():
    made = results()
    nothing = pa.Table.from_pylist([])
    empty = Results(made.study, nothing, nothing, made.outcomes, [], {})
    assert {row.first for row in summary_rows(empty)} == {None}


def test_plot_takes_quantity_and_case():
    made = results()
    assert made.plot().to_dict()["title"]["text"] == "regression: excess risk"
    assert made.plot("tail_recall").to_dict()["title"]["text"] == "language: tail recall"
    assert "facet" in grid(generations=2, seeds=2).plot().to_dict()


def test_import_is_light_and_without_torch():
    code = "import refeed.report, refeed.theory, sys; print([m for m in sys.modules if m in {heavy}])"
    heavy = {"torch", "altair", "vl_convert", "pandas", "matplotlib"}
    out = subprocess.run([sys.executable, "-c", code.format(heavy=heavy)], capture_output=True, text=True, check=True)
    assert json.loads(out.stdout.replace("'", '"')) == []

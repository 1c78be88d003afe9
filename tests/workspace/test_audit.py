"""The audit that is written down with every shard, and what becomes of it in the ledger and in notices."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from refeed.core.rows import Ragged, Rows
from refeed.core.seeds import Seed
from refeed.families.regression.learner import LeastSquares
from refeed.families.regression.sampler import Relabel
from refeed.policies.filters import TopFraction
from refeed.policies.wrappers import Wrapped
from refeed.report.notices import notices
from refeed.studies import run
from refeed.workspace import Workspace
from refeed.workspace.audit import audit, row_hashes
from toy import kept_study


def tokens(*stories):
    return Rows(tokens=Ragged.of(stories, np.uint16))


def test_repeats_lengths_and_ends_of_sequences():
    real = audit(tokens([5, 6, 0], [5, 0], [5, 0], [7, 8, 9]))
    assert real["repeats"] == 0.25
    assert real["mean_length"] == 2.5
    assert (real["closing"], real["ended"]) == (0, 0.75)
    assert audit(tokens([5, 6], [4, 4], [3, 0]), closing=0)["ended"] == pytest.approx(1 / 3)
    assert "ended" not in audit(tokens([1], [2], [3], [4]))  # real rows that end in nothing in common
    assert set(audit(Rows(x=np.zeros((3, 2))))) == {"content", "repeats"}
    assert set(audit(tokens())) == {"content"}


@pytest.mark.parametrize(
    "rows",
    [
        Rows(x=np.arange(12.0).reshape(6, 2), y=np.arange(6)),
        Rows(image=np.random.default_rng(0).integers(0, 255, size=(6, 5, 5, 3)).astype(np.uint8)),
        tokens([1], [1, 0], [0, 1], [], [1, 0, 0], [2]),
        Rows(positions=Ragged(np.arange(24.0).reshape(8, 3), np.array([0, 1, 3, 3, 5, 7, 8]))),
        Rows(text=np.array(["a", "b", "ab", "", "ba", "aa"], dtype=object)),
    ],
    ids=["numbers", "images", "tokens", "atoms", "text"],
)
def test_equal_rows_have_equal_hashes_and_others_do_not(rows):
    hashes = row_hashes(rows)
    assert len(set(hashes.tolist())) == 6
    assert np.array_equal(row_hashes(rows.take(np.array([4, 4, 1]))), hashes[[4, 4, 1]])
    assert audit(rows)["content"] == audit(rows.take(np.arange(6)).with_columns(refeed_row=np.arange(6)))["content"]
    assert audit(rows)["content"] != audit(rows.take(np.array([1, 0, 2, 3, 4, 5])))["content"]


def test_random_hashes_do_not_collide():
    rows = Rows(x=np.random.default_rng(0).integers(0, 40, size=(200_000, 4)).astype(np.uint16))
    distinct = len(np.unique(rows["x"], axis=0))
    assert audit(rows)["repeats"] == pytest.approx(1 - distinct / 200_000, abs=1e-12)


@dataclass(frozen=True, kw_only=True)
class Deaf(Relabel):
    """A sampler that ignores its seed."""

    def sample(self, model, num_rows, *, world, seed):
        rows = super().sample(model, num_rows, world=world, seed=Seed(0))
        return rows.with_columns(y=np.zeros(num_rows), x=np.round(rows["x"] / 4))


def lines(results, policy):
    return [line for line in results.ledger.to_pylist() if line["policy"] == policy]


def test_a_sampler_that_ignores_its_seed_is_noticed(tmp_path):
    study = kept_study(seeds=(0, 1), generations=2, names=("replace",))
    study = replace(study, cases=(replace(study.cases[0], sampler=Deaf()),))
    results = run(study, workspace=tmp_path / "w")
    assert [line["same_rows"] for line in lines(results, "replace")] == [3, 3]
    assert all(line["repeats"] > 0.2 and line["repeats_real"] == 0 for line in lines(results, "replace"))
    said = " ".join(notices(results))
    assert "sampled the same rows as another step of the study" in said
    assert "of the sampled rows repeat others" in said
    assert notices(run(kept_study(seeds=(0, 1), generations=2), workspace=tmp_path / "v")) == []


class Twin(LeastSquares):
    """Another learner by name, the same by result."""


def test_cases_whose_models_come_out_equal_are_no_fault_of_the_sampler(tmp_path):
    study = kept_study(seeds=(0, 1), generations=2)
    case = study.cases[0]
    results = run(replace(study, cases=(case, replace(case, name="twin", learner=Twin()))), workspace=tmp_path / "w")
    assert len(results.ledger) == 12
    assert set(results.ledger["same_rows"].to_pylist()) == {0}
    assert notices(results) == []


def test_the_ledger_counts_what_filters_reject_also_after_trimming(tmp_path):
    study = kept_study(seeds=(0,), generations=3, names=("replace",))
    filtered = Wrapped(policy=study.policies["replace"], alterations=(TopFraction(score="fit", fraction=0.25),))
    study = replace(study, policies={"replace": filtered}, rows="needed")
    results = run(study, workspace=tmp_path / "w")
    assert [line["rejected"] for line in lines(results, "replace")] == [0.75] * 3
    assert [line["repeats"] for line in lines(results, "replace")] == [0.0] * 3
    store = Workspace(tmp_path / "w")
    assert store.audit(study.arms[0].turns[0].fresh.step) is not None
    assert store.audit(study.arms[0].turns[0].model) is None

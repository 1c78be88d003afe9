"""Study files: what they may say, and that every mistake is one clear error that names the line."""

import tomllib

import pytest

from refeed.core.errors import SourceError, StudyError
from refeed.families.regression.learner import Ridge
from refeed.studies import load_study, shipped
from refeed.studies.files import parse

TEXT = """question = "Does it?"
family = "regression"
generations = 4
seeds = 2
policies = ["replace", { kind = "accumulate-subsample", rows = 20 }]

[source]
dimension = 3
rows = 30

[learner]
kind = "ridge"
penalty = 2.0
"""


def study(text=TEXT, **options):
    return parse(text, name="mine", where="mine.toml", **options)


def test_a_file_becomes_objects():
    found = study()
    (case,) = found.cases
    assert (found.question, found.generations, found.seeds) == ("Does it?", 4, (0, 1))
    assert list(found.policies) == ["replace", "accumulate-subsample (rows 20)"]
    assert case.learner == Ridge(penalty=2.0)
    assert (case.source.dimension, case.source.rows) == (3, 30)
    assert len(found.arms) == 4


@pytest.mark.parametrize("name", shipped())
def test_shipped_studies_load_at_every_scale(name):
    scales = tomllib.loads(shipped()[name]).get("scale", {})
    assert "tiny" in scales
    for scale in (None, "small", *scales):
        try:
            question = load_study(name, scale=scale).question
        except SourceError as missing:  # it needs data that nobody may ship
            question = "why?" if "--set source.path=" in str(missing) else str(missing)
        assert question.endswith("?")


TEXT_STUDIES = [name for name, text in shipped().items() if "source.path=TinyStories" in text]


@pytest.mark.parametrize("name", TEXT_STUDIES)
def test_language_studies_can_be_planned_at_the_papers_scale_without_its_text(name):
    found = load_study(name, scale="paper", overrides=["source.kind=outline"])
    assert all(case.learner.batch_stories == 32 and case.source.vocabulary == 8000 for case in found.cases)


def test_table_2_has_a_fifth_of_the_data_and_a_fifth_for_three_epochs():
    cases = {case.name: case for case in load_study("language-controls", scale="paper", overrides=["source.kind=outline"]).cases}
    sizes = {name: (case.source.rows, case.learner.epochs) for name, case in cases.items()}
    assert sizes == {"all": (2_119_719, 1), "fifth": (423_944, 1), "fifth-longer": (423_944, 3)}


@pytest.mark.parametrize("scale", ["tiny", "small", "paper"])
def test_the_martingale_test_refits_on_a_half_and_two_and_eight_times_the_training_set(scale):
    found = load_study("martingale", scale=scale, overrides=["source.kind=outline"] * (scale == "paper"))
    amounts = [arm.turns[1].train.num_rows / arm.case.source.num_rows for arm in found.arms[:3]]
    assert amounts == pytest.approx([0.5, 2, 8], abs=1e-6)


@pytest.mark.parametrize("name", shipped())
def test_shipped_studies_are_short(name):
    assert len(shipped()[name].splitlines()) <= 30


def test_overrides_change_values_kinds_and_policies():
    found = study(overrides=["generations=7", "source.rows=50", "learner=ols", "seeds=[3, 5]", "policy.rows=11"])
    assert found.generations == 7
    assert found.seeds == (3, 5)
    assert found.cases[0].source.rows == 50
    assert type(found.cases[0].learner).__name__ == "LeastSquares"
    assert list(found.policies) == ["replace (rows 11)", "accumulate-subsample (rows 11)"]


def test_scale_is_one_dial():
    text = TEXT + '\n[scale.tiny]\ngenerations = 2\n"source.rows" = 10\n\n[scale.paper]\nseeds = 9\n'
    assert (study(text).generations, study(text).cases[0].source.rows) == (4, 30)
    assert (study(text, scale="tiny").generations, study(text, scale="tiny").cases[0].source.rows) == (2, 10)
    assert len(study(text, scale="paper").seeds) == 9


def test_a_grid_makes_cases_with_labels():
    found = study(TEXT + '\n[grid]\n"source.rows" = [10, 20]\n"learner.penalty" = [1.0, 4.0]\n')
    assert [case.name for case in found.cases][:2] == ["rows 10, penalty 1.0", "rows 10, penalty 4.0"]
    assert {(case.source.rows, case.learner.penalty) for case in found.cases} == {(10, 1.0), (10, 4.0), (20, 1.0), (20, 4.0)}
    assert found.cases[0].labels == {"source.rows": 10, "learner.penalty": 1.0}


def test_cases_share_what_stands_outside_them():
    text = 'policies = ["replace"]\nfamily = "regression"\n[source]\nrows = 30\n[cases.a]\n[cases.b]\nsource = { rows = 40 }\n'
    found = study(text)
    assert [(case.name, case.source.rows) for case in found.cases] == [("a", 30), ("b", 40)]


def test_every_option_changes_the_identity():
    changes = ["generations=5", "seeds=3", 'policies=["replace"]', "source.rows=31", "source.noise=2.0", "learner.penalty=3.0"]
    changes += ["learner=ols", "sampler.design=same", "source.signal=2.0", "policy.rows=10"]
    digests = [study(overrides=[change]).digest for change in changes]
    assert len({study().digest, *digests}) == len(changes) + 1


WRONG = [
    ("generations = 4", "generation = 4", "generation is not an option; did you mean 'generations'?", 3),
    ("generations = 4", "generations = 'four'", "generations must be a whole number, not 'four'", 3),
    ("generations = 4", "generations = 0", "generations must be at least 1 and at most 10,000, not 0", 3),
    ("seeds = 2", "seeds = -1", "seeds must be at least 1, not -1", 4),
    ("seeds = 2", "seeds = [1, 1]", "seeds must differ from each other", 4),
    ('"replace"', '"replce"', "policy 'replce' is not known; did you mean 'replace'?", 5),
    ("rows = 20", "rows = 'x'", "option 'rows' is wrong", 5),
    ("rows = 20", "row = 20", "policy 'accumulate-subsample' has no option 'row'; did you mean 'rows'?", 5),
    ('family = "regression"', 'family = "regresion"', "family 'regresion' is not known; did you mean 'regression'?", 2),
    ('family = "regression"', "", "needs a 'family'", None),
    ("dimension = 3", "dimension = 0", "source.dimension and source.rows must be at least 1, not 0 and 30", 7),
    ("dimension = 3", "dimension = 2.5", "option 'dimension' is wrong: input should be a valid integer, but it is 2.5", 8),
    ("dimension = 3", "dimensions = 3", "source 'linear' has no option 'dimensions'; did you mean 'dimension'?", 8),
    ('kind = "ridge"', 'kind = "rigde"', "learner 'rigde' is not known; did you mean 'ridge'?", 11),
    ("penalty = 2.0", "penalty = -1.0", "learner.penalty must be positive, not -1.0", 11),
    ("seeds = 2", "seeds = 2\nmetrics = ['cross_entropy']", "metric 'cross_entropy' is not known", 5),
    ("seeds = 2", "seeds = ", "is not valid TOML", None),
]


@pytest.mark.parametrize(("old", "new", "message", "line"), WRONG)
def test_a_mistake_is_one_clear_error_with_its_line(old, new, message, line):
    with pytest.raises(StudyError) as caught:
        study(TEXT.replace(old, new, 1))
    text = str(caught.value)
    assert message in text
    assert "mine.toml" in text
    assert "Traceback" not in text
    if line is not None:
        assert f"line {line}." in text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("generations", "--set takes KEY=VALUE, not 'generations'"),
        ("source.row=3", "source 'linear' has no option 'row'; did you mean 'rows'?"),
        ("learner.kind=ols", "To leave out what the study says of another learner: --set 'learner="),
        ("source.rows=-3", "must be at least 1"),
        ("policy.capacity=3", "no policy of this study has an option 'capacity'"),
        ("learner=rigde", "did you mean 'ridge'?"),
    ],
)
def test_a_wrong_override_is_one_clear_error(override, message):
    with pytest.raises(StudyError, match=message.replace("?", r"\?")):
        study(overrides=[override])


def test_an_unknown_study_names_those_there_are():
    with pytest.raises(StudyError, match=r"study 'linear-regresion' is not known; did you mean 'linear-regression'\?"):
        load_study("linear-regresion")
    with pytest.raises(StudyError, match=r"there is no study file nowhere\.toml"):
        load_study("nowhere.toml")


def test_a_metric_that_the_learner_cannot_serve_is_refused_before_anything_runs():
    from dataclasses import replace

    from refeed.studies import Study

    case = study().cases[0]
    needy = type("Needy", (), {"name": "cross_entropy", "needs": frozenset({"log_prob"}), "quantities": ()})()
    with pytest.raises(StudyError, match="metric 'cross_entropy' needs log_prob, which neither the learner Ridge"):
        Study(cases=[replace(case, metrics=(needy,))], policies=study().policies)


def test_generation_one_may_have_other_options():
    text = 'family = "language"\nlearner = { kind = "llama", width = 32, epochs = 2 }\nfirst_learner = { epochs = 5 }\n'
    (case,) = parse(text, name="s").cases
    assert (case.learner.width, case.learner.epochs) == (32, 2)
    assert (case.first_learner.width, case.first_learner.epochs) == (32, 5)
    (plain,) = parse(text.partition("first_")[0], name="s").cases
    assert plain.first_learner is None
    with pytest.raises(StudyError, match="no option 'epoch'") as caught:
        parse(text.replace("{ epochs = 5", "{ epoch = 5"), name="s")
    assert "line 3" in str(caught.value)


def test_weights_to_start_from_are_looked_for_at_once():
    with pytest.raises(StudyError, match="LeastSquares cannot begin from given weights"):
        parse('family = "regression"\nstart = "some/model"\n', name="s")
    with pytest.raises(SourceError, match="'no/such' is neither a folder here"):
        parse('family = "language"\nstart = "no/such"\n', name="s")
    with pytest.raises(StudyError, match="start must be text"):
        parse('family = "regression"\nstart = 3\n', name="s")


def test_tiny_is_what_the_file_says_for_small_with_further_changes():
    small, tiny = "[scale.small]\nsource = { rows = 40, dimension = 4 }\n", '[scale.tiny]\n"source.rows" = 20\n'
    text = f'family = "regression"\n{small}{tiny}[scale.paper]\n'
    sources = {scale: parse(text, name="s", scale=scale).cases[0].source for scale in ("small", "tiny", "paper")}
    assert (sources["small"].rows, sources["small"].dimension) == (40, 4)
    assert (sources["tiny"].rows, sources["tiny"].dimension) == (20, 4)
    assert (sources["paper"].rows, sources["paper"].dimension) == (100, 10)

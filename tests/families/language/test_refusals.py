"""What a sampler refuses, and when: as it is made, as a study is read, or before the first step."""

from __future__ import annotations

import pytest

from refeed.core.errors import StudyError
from refeed.core.seeds import Seed
from refeed.families.language.learner import Llama
from refeed.families.language.sampler import Ancestral
from refeed.families.language.source import StoryGrammar
from refeed.policies import replace
from refeed.studies import Case, Study, run
from refeed.workspace import Workspace


def test_impossible_settings_are_refused(model, world):
    wrong = [{"temperature": -1.0}, {"temperature": float("nan")}, {"max_tokens": 0}, {"batch": 0}, {"top_p": 0.0}, {"top_p": 1.1}]
    wrong += [{"min_p": -0.1}, {"top_k": -1}, {"prompt": -1}, {"dtype": "float16"}, {"engine": "fast"}, {"device": "tpu"}]
    for options in wrong:
        with pytest.raises(StudyError, match=f"sampler.{next(iter(options))}"):
            Ancestral(**options)
    with pytest.raises(StudyError, match=r"learner\.context"):
        Ancestral(max_tokens=81).sample(model, 1, world=None, seed=Seed(0))
    with pytest.raises(StudyError, match="nothing to write"):
        Ancestral(max_tokens=4, prompt=4).sample(model, 1, world=world, seed=Seed(0))


@pytest.mark.parametrize("sampler", [Ancestral(max_tokens=81), Ancestral(prompt=80), Ancestral(max_tokens=4, prompt=4)])
def test_stories_that_no_model_of_the_learner_could_write_are_refused_before_anything_is_fitted(sampler):
    case = {"source": StoryGrammar(rows=30, test_rows=10), "metrics": ()}
    with pytest.raises(StudyError, match=r"sampler\.(max_tokens|prompt) = .*80|nothing to write of 4") as caught:
        Case(**case, learner=Llama(context=80), sampler=sampler).check()
    assert "--set sampler." in caught.value.hint
    with pytest.raises(StudyError, match=r"sampler\.(max_tokens|prompt)"):
        Case(**case, learner=Llama(context=256), first_learner=Llama(context=3), sampler=sampler).check()


def test_a_gpu_that_is_not_there_is_named(model, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for engine in ("auto", "torch", "vllm"):
        with pytest.raises(StudyError, match=r"(?s)finds no CUDA device.*'cpu'"):
            Ancestral(device="cuda", engine=engine).sample(model, 1, world=None, seed=Seed(0))


@pytest.mark.parametrize("sampler", [Ancestral(device="cuda"), Ancestral(engine="vllm")])
def test_what_this_machine_lacks_is_said_before_the_first_step(sampler, monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("refeed.families.language.sampling.vllm.missing", lambda: True)
    case = Case(source=StoryGrammar(rows=30, test_rows=10), learner=Llama(context=80), sampler=sampler, metrics=())
    study = Study(cases=[case], policies={"replace": replace()}, seeds=(0,), generations=2)
    with pytest.raises(StudyError, match=r"no CUDA device|not installed"):
        run(study, workspace=tmp_path)
    assert len(Workspace(tmp_path).records) == 0
    assert not list((tmp_path / "steps").iterdir())

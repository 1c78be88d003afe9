"""The paper's models, to the last parameter; and models from elsewhere, by their content."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import numpy as np
import pytest
import torch

from refeed import catalogue
from refeed.core.errors import SourceError, StudyError
from refeed.core.recipes import digest
from refeed.core.seeds import Seed
from refeed.families.language import FAMILY
from refeed.families.language.learner import GPT2, Causal, Llama
from refeed.families.language.sampler import Ancestral
from refeed.families.language.source import StoryGrammar, Text, stories_of
from refeed.policies import accumulate
from refeed.report.sections import recipes
from refeed.studies import Case, Study, run
from refeed.studies.export import export
from refeed.workspace import Workspace
from refeed.workspace.provenance import Provenance, tree

COUNTS = {"gpt2-9m": 8_890_880, "llama-12m": 12_488_960, "llama-42m": 41_755_136, "llama-126m": 125_553_408}


def learner(entry):
    return catalogue.build(entry, FAMILY.learners, "learner")


@pytest.mark.parametrize("name", COUNTS)
def test_the_papers_models_have_its_parameter_counts(name):
    from transformers import AutoModelForCausalLM

    preset = learner(name)
    with torch.device("meta"):
        net = AutoModelForCausalLM.from_config(preset.config(size=8000, end=0))
    assert sum(parameter.numel() for parameter in net.parameters()) == COUNTS[name]
    assert type(net).__name__ == ("GPT2LMHeadModel" if name == "gpt2-9m" else "LlamaForCausalLM")
    assert (preset.epochs, preset.steps, preset.batch_stories, preset.context) == (1, None, 32, 512)


def test_a_preset_is_its_learner_with_other_defaults():
    changed = learner({"kind": "llama-12m", "layers": 2, "precision": "float32"})
    assert isinstance(changed, Llama)
    assert (changed.layers, changed.width, changed.precision) == (2, 256, "float32")
    assert digest(learner("llama-12m")) == digest(learner({"kind": "llama-12m", "layers": 8}))
    with pytest.raises(StudyError, match="no option 'positions'"):
        learner({"kind": "llama-12m", "positions": 4})


def test_gpt2_may_have_more_positions_than_it_is_trained_on(small, data, world, tmp_path):
    model = GPT2(**small | {"steps": 2, "positions": 128}).fit(data, world=world, seed=Seed(0))
    assert model.net.transformer.wpe.weight.shape == (128, 32)
    assert model.context == 80
    model.save(tmp_path)
    assert GPT2().load(tmp_path).context == 80
    with pytest.raises(StudyError, match="positions"):
        GPT2(context=64, positions=32)


@pytest.fixture(scope="module")
def given(tmp_path_factory, source, world):
    """A folder as transformers writes it: a small GPT-2 of another shape, fitted to the grammar."""
    from conftest import data_of

    folder = tmp_path_factory.mktemp("given")
    options = {"width": 24, "layers": 2, "heads": 2, "feed_forward": 40, "context": 80, "learning_rate": 1e-2, "steps": 25}
    GPT2(**options).fit(data_of(source, world, (1.0,)), world=world, seed=Seed(9)).save(folder)
    return folder


@pytest.fixture
def quick():
    return {"context": 80, "batch_tokens": 320, "steps": 3}


def same(a, b):
    a, b = a.net.state_dict(), b.net.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_any_model_of_a_folder_goes_on_or_begins_anew(given, quick, data, world, capfd):
    start = Causal().given(str(given))
    assert capfd.readouterr().err == ""  # transformers' bars are off
    before = -start.log_prob(stories_of(world.test)).mean()
    still = Causal(**quick | {"learning_rate": 1e-12, "weight_decay": 0.0}).fit(data, world=world, seed=Seed(0), start=start)
    assert -still.log_prob(stories_of(world.test)).mean() == pytest.approx(before, rel=1e-5)
    more = Causal(**quick | {"learning_rate": 3e-3, "steps": 20}).fit(data, world=world, seed=Seed(0), start=start)
    assert -more.log_prob(stories_of(world.test)).mean() < before
    assert same(start, Causal().given(str(given)))  # what was given is left as it was
    anew = Causal(model=str(given), **quick).fit(data, world=world, seed=Seed(0))
    assert -anew.log_prob(stories_of(world.test)).mean() > 1.5 * before
    assert anew.net.config.n_layer == 2


def test_the_identity_of_given_weights_is_their_content(given, tmp_path):
    copied = tmp_path / "elsewhere"
    shutil.copytree(given, copied)
    assert Causal().given_digest(str(copied)) == Causal().given_digest(str(given))
    assert digest(Causal(model=str(copied))) == digest(Causal(model=str(given)))
    assert str(given) not in json.dumps(Causal(model=str(given)).identity())
    weights = bytearray((copied / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copied / "model.safetensors").write_bytes(weights)
    assert Causal().given_digest(str(copied)) != Causal().given_digest(str(given))
    assert digest(Causal(model=str(copied))) == digest(Causal(model=str(given)))  # the same architecture


def test_a_name_is_looked_up_in_the_hub_cache_and_nowhere_else(given, tmp_path, monkeypatch):
    from huggingface_hub import constants

    from refeed.families.language import pretrained

    place = tmp_path / "models--somebody--small"
    shutil.copytree(given, place / "snapshots/0123abc")
    (place / "refs").mkdir()
    (place / "refs/main").write_text("0123abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.utils.hub.TRANSFORMERS_CACHE", str(tmp_path), raising=False)
    pretrained._hub_folder.cache_clear()
    assert Causal().given_digest("somebody/small") == Causal().given_digest(str(given))
    assert same(Causal().given("somebody/small"), Causal().given(str(given)))
    pretrained._hub_folder.cache_clear()
    with pytest.raises(SourceError, match="'nobody/none' is neither a folder here nor a model"):
        Causal().given_digest("nobody/none")


def test_what_cannot_be_begun_from_is_said(given, small, data, world, tmp_path):
    start = Causal().given(str(given))
    with pytest.raises(StudyError, match="of another shape") as caught:
        GPT2(**small).fit(data, world=world, seed=Seed(0), start=start)
    assert "causal" in caught.value.hint
    text = json.loads((given / "tokenizer.json").read_text())
    words = list(text["model"]["vocab"])
    text["model"]["vocab"] = dict(zip(words, range(len(words) - 1, -1, -1), strict=True))
    other = tmp_path / "other"
    shutil.copytree(given, other)
    (other / "tokenizer.json").write_text(json.dumps(text))
    with pytest.raises(StudyError, match="another tokenizer") as caught:
        Causal(**{"context": 80}).fit(data, world=world, seed=Seed(0), start=Causal().given(str(other)))
    assert "source.tokenizer" in caught.value.hint
    with pytest.raises(StudyError, match="needs an architecture or weights"):
        Causal().fit(data, world=world, seed=Seed(0))
    (other / "model.safetensors").rename(other / "pytorch_model.bin")
    with pytest.raises(SourceError, match="no weights in safetensors"):
        Causal().given_digest(str(other))
    (other / "config.json").unlink()
    with pytest.raises(SourceError, match=r"holds no config\.json"):
        Causal(model=str(other)).identity()


def study(start, *, learner=None, **options):
    learner = learner or Causal(context=80, batch_tokens=320, steps=2)
    case = Case(
        source=StoryGrammar(rows=30, test_rows=10), learner=learner, sampler=Ancestral(), metrics=(), start=start, **options
    )
    return Study(cases=[case], policies={"accumulate": accumulate()}, seeds=(0,), generations=2)


def test_weights_that_do_not_fit_are_refused_before_anything_runs(given, tmp_path, small):
    """One error when the study is made, not a traceback at the first fit."""
    with pytest.raises(StudyError, match="of another shape") as caught:
        study(str(given), learner=GPT2(**small))
    assert caught.value.at == "start"
    study(str(given), learner=GPT2(width=24, layers=2, heads=2, feed_forward=40, context=80))
    text = json.loads((given / "tokenizer.json").read_text())
    text["model"]["vocab"]["another"] = len(text["model"]["vocab"])
    other = tmp_path / "other"
    shutil.copytree(given, other)
    (other / "tokenizer.json").write_text(json.dumps(text))
    with pytest.raises(StudyError, match=r"another tokenizer than the source's, which has 305 tokens where theirs has 306"):
        study(str(other))
    with pytest.raises(StudyError, match=r"learner.context = 81 is more than the 80 positions of"):
        study(str(given), learner=Causal(context=81))
    with pytest.raises(StudyError, match="needs an architecture or weights"):
        study("scratch")


def test_a_text_must_be_told_to_speak_in_the_tokens_of_given_weights(given, tmp_path):
    (tmp_path / "stories.txt").write_text("\n".join(f"once there was a red girl named anna {n}" for n in range(40)))
    learner = Causal(context=80, batch_tokens=320, steps=1)

    def of(**options):
        source = Text(path=str(tmp_path / "stories.txt"), **options)
        return Case(source=source, learner=learner, sampler=Ancestral(), metrics=(), start=str(given))

    with pytest.raises(StudyError, match="another tokenizer than the source's, which is yet to be learnt") as caught:
        of().check()
    assert f"--set source.tokenizer={given}" in caught.value.hint
    of(tokenizer=str(given)).check()


def test_every_generation_begins_from_the_given_weights_and_says_so(given, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    chosen = study(str(given))
    fits = [turn.model for turn in chosen.arms[0].turns]
    assert {fit.start.digest for fit in fits} == {chosen.cases[0].given.digest}
    assert fits[0].digest != study("scratch", learner=GPT2(context=80)).arms[0].turns[0].model.digest
    copied = tmp_path / "copied"
    shutil.copytree(given, copied)
    assert study(str(copied)).digest == chosen.digest
    store = Workspace(tmp_path / "w")
    results = run(chosen, workspace=store)
    assert results.cases["main"]["start"] == str(given)
    content = f"weights of {given} (content {chosen.cases[0].given.digest[:12]})"
    assert content in recipes(results, "main")
    assert content in "".join(tree(Provenance(store.path), fits[1].digest))
    export(chosen, store, chosen.arms[0], chosen.arms[0].turns[1], tmp_path / "x")
    assert content in (tmp_path / "x/README.md").read_text()
    for generation, fit in enumerate(fits, start=1):
        folder = store.folder(fit) / "model"
        head, _, words = (folder / "README.md").read_text().removeprefix("---\n").partition("\n---\n")
        card = {line.split(": ")[0].strip(): line.split(": ", 1)[1] for line in head.splitlines() if ": " in line}
        assert json.loads(card["generation"]) == generation
        assert json.loads(card["start"])["digest"] == chosen.cases[0].given.digest
        assert json.loads(card["trained_on"]) == {str(origin): 30 for origin in range(generation)}
        assert len(json.loads(card["parents"])) == generation - 1
        assert f"# Generation {generation}" in words
        net = AutoModelForCausalLM.from_pretrained(folder)
        assert net.num_parameters() == store.realise(fit).net.num_parameters()
        assert AutoTokenizer.from_pretrained(folder).eos_token_id == net.config.eos_token_id


def test_a_card_is_yaml_and_changes_no_digest(given, tmp_path):
    import yaml

    from refeed.workspace.model_card import write_card

    (fit, _) = [turn.model for turn in study(str(given)).arms[0].turns]
    write_card(fit, tmp_path)
    head = (tmp_path / "README.md").read_text().split("---\n")[1]
    assert yaml.safe_load(head)["refeed"]["policy"]["kind"].startswith("refeed.policies")


def test_families_without_given_weights_refuse_them(lineage):
    from refeed.families.regression.learner import LeastSquares

    with pytest.raises(StudyError, match="LeastSquares cannot begin from given weights") as caught:
        Case(source=StoryGrammar(), learner=LeastSquares(), sampler=Ancestral(), metrics=(), start="weights").check()
    assert caught.value.at == "start"


def test_generation_one_may_be_trained_otherwise():
    first = GPT2(context=80, epochs=3)
    steps = study("scratch", learner=GPT2(context=80), first_learner=first).arms[0].turns
    assert [turn.model.learner.epochs for turn in steps] == [3, 1]
    assert Counter(turn.generation for turn in steps) == {1: 1, 2: 1}
    plain = study("scratch", learner=GPT2(context=80))
    assert plain.digest != study("scratch", learner=GPT2(context=80), first_learner=first).digest
    assert np.unique([turn.model.digest for arm in (plain,) for turn in arm.arms[0].turns]).size == 2

"""Several processes train what one does, whoever dies meanwhile: two of this machine, by gloo; on GPUs where there are two."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import stat
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from refeed.core import checkpoints, devices, progress
from refeed.core.devices import Devices
from refeed.core.errors import StepFailed, Stopped, StudyError
from refeed.core.rows import Ragged
from refeed.core.seeds import Seed
from refeed.families.language import launch, nets
from refeed.families.language.distributed import blocks, share, too_large
from refeed.families.language.layout import TrainingText
from refeed.families.language.learner import GPT2, Causal, Llama
from refeed.families.language.metrics import CrossEntropy
from refeed.families.language.sampler import Ancestral
from refeed.families.language.sending import dump, load
from refeed.families.language.source import StoryGrammar
from refeed.policies import replace as replace_policy
from refeed.studies import Case, Study, run
from refeed.studies.engines import Processes
from refeed.studies.resources import Resources

TOLERANCE = 1e-5  # of a loss, relatively; 3e-8 was seen
END = 0


def text(lengths):
    rows = Ragged.of([[*range(1, n), END] for n in lengths], np.uint16)
    return TrainingText([(rows, 1.0)], context=64, end=END)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("lengths", [[5, 30, 17, 17, 64, 2, 29, 12], [7, 7, 7], [3]])
def test_processes_share_every_story_of_a_step_once(size, lengths):
    stories = text(lengths)
    shares = [share(stories, np.arange(len(lengths)), rank=rank, size=size, max_cells=40) for rank in range(size)]
    assert len({len(batches) for batches in shares}) == 1  # else some would wait for ever
    batches = [batch for batches in shares for batch in batches]
    assert sum(batch.num_tokens for batch in batches) == sum(lengths)
    assert sum(batch.weights.sum() for batch in batches) == pytest.approx(sum(lengths))
    seen = sorted(int((batch.weights[cell : cell + n] > 0).sum()) for batch in batches for cell, n in stories_in(batch))
    assert [length for length in seen if length] == sorted(lengths)


def stories_in(batch):
    return [(cell, n) for first, number, n in batch.groups for cell in range(first, first + number * n, n)]


def test_large_steps_are_shared_about_equally():
    lengths = np.random.default_rng(0).integers(2, 64, 500)
    stories = text(lengths)
    tokens = [stories.num_tokens_of(pieces) for pieces in stories.shares(np.arange(500), 4)]
    assert max(tokens) - min(tokens) < 64


def test_what_is_sent_arrives_with_its_ties_and_its_arrays_are_mapped(tmp_path):
    net = nets.build(nets.gpt2(vocabulary=50, end=0, context=8, width=8, layers=2, heads=2, feed_forward=8, deviation=0.1), seed=1)
    np.arange(1000, dtype=np.int32).tofile(tmp_path / "values")
    mapped = np.memmap(tmp_path / "values", dtype=np.int32, mode="r")
    dump({"net": net, "whole": mapped, "part": mapped[10:20], "empty": np.zeros(0)}, tmp_path / "job")
    size = sum(path.stat().st_size for path in (tmp_path / "job").iterdir())
    found = load(tmp_path / "job")
    assert size < 4 * sum(parameter.numel() for parameter in net.parameters()) + 30_000
    assert isinstance(found["whole"], np.memmap)
    assert found["part"].tolist() == list(range(10, 20))
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, found["net"].state_dict()[name])
    assert found["net"].lm_head.weight is found["net"].transformer.wte.weight
    with torch.no_grad():
        found["net"].lm_head.weight.add_(1)  # stays here
    assert torch.equal(load(tmp_path / "job")["net"].lm_head.weight, net.lm_head.weight)


def test_a_network_that_fills_a_device_is_sharded():
    net = torch.nn.Linear(1000, 1000, bias=False)  # 16 MB with its gradient and moments
    assert too_large(net, memory=20 * 10**6)
    assert not too_large(net, memory=30 * 10**6)


def test_the_blocks_of_a_network_are_its_layers():
    options = {"vocabulary": 50, "end": 0, "context": 8, "width": 8, "layers": 3, "heads": 2, "feed_forward": 8, "deviation": 0.1}
    assert len(blocks(nets.build(nets.gpt2(**options), seed=0))) == 3
    assert len(blocks(nets.build(nets.llama(**options, tied=False), seed=0))) == 3


# Whole fits: each start of two processes takes some eight seconds of processor time, so few tests do much. --------------------


def numbers(results):
    return {row["quantity"]: row["value"] for row in results.scores.to_pylist()}


def processes(folder):
    """The processes that have `folder` in their command line, by kind."""
    found = {"launcher": [], "worker": []}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(str(folder).encode() in word for word in words):
            found["launcher" if b"torch.distributed.run" in words else "worker"].append(int(path.name))
    return found


needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")


@pytest.fixture
def study(small):
    learner = Llama(**small | {"layers": 2, "epochs": 2, "micro_tokens": 100})
    case = Case(
        name="stories",
        family="language",
        source=StoryGrammar(rows=150, test_rows=60),
        learner=learner,
        sampler=Ancestral(engine="torch"),  # nothing to compile
        metrics=(CrossEntropy(),),
    )
    return Study(cases=(case,), policies={"replace": replace_policy()}, seeds=(0,), generations=1)


@pytest.fixture(scope="module")
def by_one():
    """What the study comes to with one process, worked out once."""
    known = {}

    def make(study, folder):
        if study.digest not in known:
            known[study.digest] = numbers(run(study, workspace=folder))
        return known[study.digest]

    return make


@pytest.mark.slow
def test_a_study_with_two_devices_has_the_numbers_of_one(study, by_one, tmp_path):
    one, spread = by_one(study, tmp_path / "one"), replace(study, resources={"fit": Resources(devices=2)})
    assert spread.digest == study.digest
    found = run(spread, workspace=tmp_path / "two", engine=Processes(workers=1))
    assert numbers(found) == pytest.approx(one, rel=TOLERANCE)
    assert numbers(found) != one  # it was computed otherwise
    assert not list((tmp_path / "two" / "partial").iterdir())
    manifests = [json.loads(path.read_text()) for path in (tmp_path / "two" / "steps").glob("*/manifest.json")]
    assert [about["devices"] for about in manifests if about["kind"] == "fit"] == [2]


@pytest.mark.slow
@needs_proc
def test_a_fit_that_loses_a_process_is_gone_on_with_by_one(study, by_one, tmp_path, monkeypatch):
    heard = []

    def listener(event):
        if event.kind == "tick" and event.unit == "steps":
            heard.append(int(event.done))
            if heard == list(range(1, 15)):
                os.kill(processes(tmp_path / "two")["worker"][-1], signal.SIGKILL)

    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    monkeypatch.setattr(launch, "MAX_RETRIES", 0)
    failed = run(replace(study, resources={"fit": Resources(devices=2)}), workspace=tmp_path / "two", listener=listener)
    died = r"a process of a fit over 2 devices died 1 time \(number \d with exit code -?\d+\)"
    assert re.search(died, failed.run["errors"][0]["traceback"])
    assert processes(tmp_path / "two") == {"launcher": [], "worker": []}
    (partial,) = (tmp_path / "two" / "partial").iterdir()
    assert {path.suffix for path in partial.iterdir()} <= {".state", ".writing"}  # it may have died while it wrote one
    assert len(list(partial.glob("*.state"))) == 1

    heard.clear()
    found = run(study, workspace=tmp_path / "two", listener=listener)
    assert heard[0] >= 14  # from the last state
    assert numbers(found) == pytest.approx(by_one(study, tmp_path / "one"), rel=TOLERANCE)


@pytest.mark.slow
@needs_proc
def test_a_fit_goes_from_one_process_to_two_that_shard_it_and_back(small, data, world, tmp_path, monkeypatch):
    learner = GPT2(**small | {"layers": 2, "epochs": 2, "curve": 4, "micro_tokens": 100})
    whole = learner.fit(data, world=world, seed=Seed(0))
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    monkeypatch.setattr(launch, "MAX_RETRIES", 0)
    heard = []

    def fit(*, until=None, by=1):
        def tick(done, *rest):
            heard.append(done)
            if done == until and by == 1:
                raise KeyboardInterrupt
            if done == until:
                os.kill(processes(tmp_path)["launcher"][-1], signal.SIGKILL)

        with devices.grant(Devices(count=by, sharded=by > 1)), progress.listen(tick):
            return learner.fit(data, world=world, seed=Seed(0))

    with checkpoints.kept_in(tmp_path / "partial"):
        with pytest.raises(KeyboardInterrupt):
            fit(until=8)
        with pytest.raises(StepFailed, match="died 1 time"):
            fit(until=20, by=2)
        assert processes(tmp_path) == {"launcher": [], "worker": []}
        assert heard[:9] == [*range(1, 9), 8]  # two went on from one's state of the seventh step
        heard.clear()
        model = fit()
    assert heard[0] >= 20  # one went on from theirs
    assert model.curve == pytest.approx(whole.curve, rel=TOLERANCE)
    assert model.curve != whole.curve  # it was computed otherwise
    stories = world.test["tokens"]
    assert model.nats_a_token(stories) == pytest.approx(whole.nats_a_token(stories), rel=TOLERANCE)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("sharded", [False, True])
def test_two_gpus_train_what_one_does(small, data, world, sharded):
    learner = Llama(**small | {"epochs": 2, "curve": 4})
    one = learner.fit(data, world=world, seed=Seed(0))
    with devices.grant(Devices(count=2, sharded=sharded)):
        two = learner.fit(data, world=world, seed=Seed(0))
    assert two.curve == pytest.approx(one.curve, rel=1e-3)


# What goes wrong, with a program in the place of torch.distributed.run. -------------------------------------------------------


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    def set_up(script):
        path = tmp_path / "python"
        path.write_text("#!/bin/sh\nfor FOLDER; do :; done\n" + script)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(launch.sys, "executable", str(path))

    return set_up


def fit_by_two(small, data, world):
    with devices.grant(Devices(count=2)):
        return Llama(**small).fit(data, world=world, seed=Seed(0))


BEGAN = "echo '[\"began\"]'\n"


def test_a_launcher_that_cannot_start_says_why(launcher, small, data, world):
    launcher("echo RendezvousConnectionError: the connection to the C10d store has failed >&2; exit 1")
    with pytest.raises(StepFailed, match=r"could not start the processes of a fit:\nRendezvousConnectionError: the connection"):
        fit_by_two(small, data, world)


def test_a_file_that_lies_about_is_not_taken_for_a_module_of_python(launcher, small, data, world, tmp_path, monkeypatch):
    (tmp_path / "this.py").write_text("raise RuntimeError('of the folder')")
    monkeypatch.chdir(tmp_path)
    launcher(f"{sys.executable} -m this > {tmp_path}/said && echo no wonder >&2; exit 1")
    with pytest.raises(StepFailed, match="no wonder"):
        fit_by_two(small, data, world)
    assert "Tim Peters" in (tmp_path / "said").read_text()


def test_what_a_cluster_says_to_torchrun_is_not_heard(launcher, small, data, world, monkeypatch):
    monkeypatch.setenv("PET_NNODES", "2")  # it would wait for another machine
    launcher("echo of ${PET_NNODES:-this} machine >&2; exit 1")
    with pytest.raises(StepFailed, match="of this machine"):
        fit_by_two(small, data, world)


def test_an_exception_in_a_process_is_told_and_not_tried_again(launcher, small, data, world, caplog):
    launcher(BEGAN + "echo ValueError: a defect > $FOLDER/error-1; exit 1")
    with pytest.raises(StepFailed, match=r"process 1 of a fit over several devices raised:\nValueError: a defect"):
        fit_by_two(small, data, world)
    assert not caplog.records


def test_a_process_that_dies_again_and_again_is_named(launcher, small, data, world, caplog, tmp_path):
    launcher(BEGAN + f"echo once >> {tmp_path}/starts; printf '  rank : 1 (local_rank: 1)\\n  exitcode : -9\\n' >&2; exit 1")
    with pytest.raises(StepFailed, match=r"died 3 times \(number 1 with exit code -9\)\.\n.*out of memory"):
        fit_by_two(small, data, world)
    assert len((tmp_path / "starts").read_text().split()) == 3
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 3


def test_an_end_with_a_name_comes_through(launcher, small, data, world, tmp_path):
    dump(Stopped("diverged", "the training loss became nan at step 3 of 9"), tmp_path / "stopped")
    launcher(BEGAN + f"cp -r {tmp_path}/stopped $FOLDER/result")
    with pytest.raises(Stopped, match="diverged: the training loss became nan at step 3 of 9"):
        fit_by_two(small, data, world)


def test_a_network_that_is_computed_by_its_own_class_is_not_sharded(launcher, data, world, tmp_path):
    from transformers import GPTNeoXConfig

    launcher("exit 1")  # not reached
    config = GPTNeoXConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    config.save_pretrained(tmp_path / "neox")
    learner = Causal(model=str(tmp_path / "neox"), context=80)
    with devices.grant(Devices(count=2, sharded=True)), pytest.raises(StudyError, match=r"'gpt_neox', or in this form, cannot be"):
        learner.fit(data, world=world, seed=Seed(0))


def test_more_devices_than_gpus_is_refused(small, data, world, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(StudyError, match=r"spread over 2 devices, but this machine has 1 GPU\.\n.*resources\.fit\.devices=1"):
        fit_by_two(small, data, world)

"""The engine ray: the bits of inline, each step once, through deaths of workers, machines and the driver."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from faulty import KINDS, divided_study, done, faulty_study, repeated
from refeed.core.errors import EngineError
from refeed.studies import run
from refeed.studies.resources import Resources
from toy import Diverging, kept_study

ray = pytest.importorskip("ray")

from refeed.studies.engines.ray import Ray  # noqa: E402

NODE = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100 * 2**20}
QUIET = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}


@pytest.fixture(scope="module")
def cluster():
    """Two raylets of one processor each, and this process connected to them, so that workers serve all tests."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    cluster.add_node(**NODE)
    ray.init(address=cluster.address, **QUIET)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def inline_scores(folder, **options):
    return run(faulty_study(folder / "inline", **options), workspace=folder / "inline-workspace").scores


def test_a_cluster_of_this_machine_alone_is_quiet_and_leaves_no_process(tmp_path):
    mark = f"REFEED_TEST_CLUSTER={tmp_path}"  # Ray's processes inherit it, and those of other tests do not have it

    def left():
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # gone meanwhile, or another's
                if mark.encode() in path.read_bytes().split(b"\0"):
                    found.append((path.parent / "cmdline").read_bytes())
        return found

    command = "from refeed.cli import main; main()"
    options = ["--set", "seeds=2", "--set", "generations=2", "--set", "source.rows=50", "--set", "source.noise=1.0", "--json"]
    ran = [sys.executable, "-c", command, "run", "linear-regression", "--engine", "ray", "--workers", "1", *options]
    started = subprocess.Popen(
        ran, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | dict([mark.split("=", 1)])
    )
    seen = set()
    while started.poll() is None:
        seen.update(left())
        time.sleep(0.1)
    stdout, stderr = started.communicate()
    assert (started.returncode, stderr) == (0, "")
    assert json.loads(stdout)["run"]["engine"] == "ray"
    assert any(b"raylet/raylet" in command for command in seen)
    deadline = time.monotonic() + 30  # they are told to end; it may take them a moment
    while left() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left() == []


def test_an_unreachable_cluster_is_one_error(tmp_path):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listening.getsockname()[1]}"
    with pytest.raises(EngineError, match=f"cannot connect to the Ray cluster at {address}: .*refused"):
        run(kept_study(), workspace=tmp_path / "w", engine=Ray(address=address))
    with pytest.raises(EngineError, match=r"cannot connect to the Ray cluster at no-such-host\.invalid:6379: .*\n.*Type: --set"):
        run(kept_study(), workspace=tmp_path / "w", engine=Ray(address="no-such-host.invalid:6379"))


def test_a_cluster_that_asks_for_a_token_is_one_error(tmp_path, capfd):
    def init(**_):
        os.write(2, b"gcs_client.cc:210: Unauthenticated: RPC error: InvalidAuthToken: Authentication token is missing\n")
        raise ConnectionError("Failed to connect")

    with socket.create_server(("127.0.0.1", 0)) as listening, pytest.MonkeyPatch.context() as patch:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        patch.setattr(ray, "is_initialized", lambda: False)
        patch.setattr(ray, "init", init)
        with pytest.raises(EngineError, match=r"asks for a token, .*\n  Type RAY_AUTH_MODE=token before the command"):
            run(kept_study(), workspace=tmp_path / "w", engine=Ray(address=address))
    assert capfd.readouterr().err == ""


def test_a_machine_that_cannot_get_ready_says_why():
    from refeed.studies.engines.ray import _unready

    assert str(_unready(ModuleNotFoundError("No module named 'refeed'"))).startswith(
        "a machine of the Ray cluster cannot load refeed: No module named 'refeed'.\n  Install refeed"
    )
    assert "cannot get ready: OSError: no route to host." in str(_unready(OSError("no route to host.\nat length")))


def test_two_nodes_and_twenty_lineages_give_the_bits_of_inline(cluster, tmp_path):
    study = faulty_study(tmp_path / "a", seconds=0.02)
    events = []
    found = run(study, workspace=tmp_path / "w", engine=Ray(), listener=events.append)
    assert len(study.arms) == 20
    assert found.scores.equals(inline_scores(tmp_path))
    assert done(tmp_path / "a").keys() == done(tmp_path / "inline").keys()
    assert not repeated(tmp_path / "a")
    assert found.run["engine"] == "ray"
    assert {(event.done, event.unit) for event in events if event.kind == "tick"} == {(1, "halves")}
    started, ended = ([event.task.key for event in events if event.kind == kind] for kind in ("started", "ended"))
    assert sorted(started) == sorted(ended) == sorted(set(ended))


@pytest.mark.slow
def test_parts_of_samples_on_two_nodes_give_the_bytes_of_samples_drawn_at_once(cluster, tmp_path):
    shards = {}
    for name, parts, kill in (("inline", 1, ()), ("ray", 3, ("part",))):
        study = divided_study(tmp_path / name, parts=parts, kill=kill)
        found = run(study, workspace=tmp_path / f"{name}-workspace", **({"engine": Ray()} if kill else {}))
        files = (tmp_path / f"{name}-workspace" / "steps").glob("*/rows.parquet")
        shards[name] = found.scores.to_pylist(), {path.parent.name: path.read_bytes() for path in files}
    assert shards["ray"] == shards["inline"]
    assert list(repeated(tmp_path / "ray").values()) == [2]  # the part whose worker was killed
    assert not list((tmp_path / "ray-workspace" / "partial").iterdir())


def test_a_worker_killed_in_each_kind_of_step_costs_those_steps_alone(cluster, tmp_path):
    study = faulty_study(tmp_path / "a", kill=KINDS, seeds=3, generations=2)
    found = run(study, workspace=tmp_path / "w", engine=Ray())
    assert {path.name for path in (tmp_path / "a").glob("killed-*")} == {f"killed-{kind}" for kind in KINDS}
    assert found.scores.equals(inline_scores(tmp_path, seeds=3, generations=2))
    again = repeated(tmp_path / "a")
    assert sum(times - 1 for times in again.values()) == len(KINDS)  # one death in a sum over rows is one in its fit
    assert {step.split()[0] for step in again} == set(KINDS) - {"reduce"}


def test_a_step_that_kills_every_worker_is_named_and_the_others_go_on(cluster, tmp_path):
    study = kept_study(seeds=(0,), generations=3, learner=Diverging(how="killed"), names=("replace", "replace-multiple"))
    results = run(study, workspace=tmp_path / "w", engine=Ray())
    assert {(row["policy"], row["outcome"], row["generation"]) for row in results.outcomes.to_pylist()} == {
        ("replace", "failed", 2),
        ("replace-multiple", "failed", 2),
    }
    assert all("the worker process died 3 times with this step" in error["traceback"] for error in results.run["errors"])


def test_a_node_lost_in_the_middle_costs_what_ran_there(cluster, tmp_path):
    node = cluster.add_node(**NODE)
    study = faulty_study(tmp_path / "a", seconds=0.05, generations=2)
    lost = []

    def lose(event):
        if event.kind == "ended" and event.task.kind == "measure" and not lost:
            lost.append(event.task.key)
            cluster.remove_node(node, allow_graceful=False)  # SIGKILL to its raylet; workers end with it

    found = run(study, workspace=tmp_path / "w", engine=Ray(), listener=lose)
    assert lost
    assert found.scores.equals(inline_scores(tmp_path, generations=2))
    assert sum(times - 1 for times in repeated(tmp_path / "a").values()) <= 1  # it had one processor


def test_steps_for_which_no_machine_is_left_are_said_and_what_was_done_stays(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr("refeed.studies.engines.ray.QUIET_LOOKS", 2)
    node = cluster.add_node(**NODE, num_gpus=1)
    study = replace(faulty_study(tmp_path / "a", seconds=1.0, seeds=2, generations=1), resources={"fit": Resources(gpus=1)})
    fits = []

    def lose(event):
        if event.kind == "ended" and event.task.kind == "fit":
            fits.append(event.task.key)
            if len(fits) == 1:
                cluster.remove_node(node, allow_graceful=False)

    with pytest.raises(EngineError, match="a fit step asks for 1 processor and 1 GPU, which no machine of the Ray cluster has"):
        run(study, workspace=tmp_path / "w", engine=Ray(), listener=lose)
    found = run(replace(study, resources={}), workspace=tmp_path / "w", engine=Ray())
    assert found.run["steps"]["fit"]["reused"] == len(fits) == 1
    assert found.scores.equals(inline_scores(tmp_path, seeds=2, generations=1))


DRIVER = """
import sys
sys.path.insert(0, {tests!r})
from faulty import faulty_study
from refeed.studies import run
from refeed.studies.engines.ray import Ray
run(faulty_study({folder!r}, seconds=0.05, seeds=6), workspace={workspace!r}, engine=Ray(address={address!r}))
"""


def test_the_driver_may_die_and_another_goes_on(cluster, tmp_path):
    folder, workspace = str(tmp_path / "a"), str(tmp_path / "w")
    tests = str(Path(__file__).parent.parent)
    code = DRIVER.format(tests=tests, folder=folder, workspace=workspace, address=cluster.address)
    driver = subprocess.Popen([sys.executable, "-c", code])
    while driver.poll() is None and len(list(Path(workspace).glob("steps/*/manifest.json"))) < 30:
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL
    study = faulty_study(folder, seconds=0.05, seeds=6)
    plans = []
    found = run(study, workspace=workspace, engine=Ray(), on_plan=plans.append)
    assert len(plans[0].done) >= 30
    assert found.run["steps"]["fit"]["reused"] > 0
    assert found.scores.equals(inline_scores(tmp_path, seeds=6))
    assert sum(times - 1 for times in repeated(folder).values()) <= 2  # what the two workers were at when the driver died


OTHER_CLOCK = """
import sys, time
sys.path.insert(0, {tests!r})
now = time.time
time.time = lambda: now() - 86400
from faulty import faulty_study
from refeed.studies import run
run(faulty_study({folder!r}, seconds=0.05, seeds=6), workspace={workspace!r})
"""


def test_two_engines_at_once_on_one_workspace_do_no_step_twice_whatever_their_clocks_say(cluster, tmp_path):
    folder, workspace = str(tmp_path / "a"), str(tmp_path / "w")
    study = faulty_study(folder, seconds=0.05, seeds=6)
    code = OTHER_CLOCK.format(tests=str(Path(__file__).parent.parent), folder=folder, workspace=workspace)
    other = subprocess.Popen([sys.executable, "-c", code])
    while other.poll() is None and not list(Path(workspace).glob("steps/*/manifest.json")):
        time.sleep(0.02)
    found = run(study, workspace=workspace, engine=Ray())
    assert other.wait() == 0
    assert found.scores.equals(inline_scores(tmp_path, seeds=6))
    assert not repeated(folder)
    assert not list(Path(workspace).glob("damaged/*")) + list(Path(workspace).glob("tmp/*"))


@pytest.mark.slow
def test_workers_share_a_workspace_at_a_url(cluster, tmp_path):
    pytest.importorskip("fsspec")
    study = faulty_study(tmp_path / "a", seeds=2, generations=2, kill=("fit",))
    found = run(study, workspace=f"file://{tmp_path}/w", engine=Ray())
    assert found.scores.equals(inline_scores(tmp_path, seeds=2, generations=2))
    assert [(step.split()[0], times) for step, times in repeated(tmp_path / "a").items()] == [("fit", 2)]
    assert not list((tmp_path / "w").glob("claims/*/*")) + list((tmp_path / "w").glob("tmp/*/*"))
    with pytest.raises(EngineError, match=r"does not see the workspace memory://"):
        run(faulty_study(tmp_path / "b", seeds=1, generations=1), workspace="memory://w", engine=Ray())


def test_what_cannot_work_is_one_error_before_the_first_step(cluster, tmp_path, monkeypatch):
    from refeed.studies.engines import elsewhere
    from refeed.studies.engines import ray as engine

    study = faulty_study(tmp_path / "a", seeds=1, generations=1)

    def refused(match, study=study):
        with pytest.raises(EngineError, match=match):
            run(study, workspace=tmp_path / "w", engine=Ray())
        assert not (tmp_path / "a" / "log").exists()

    refused(r"a fit step asks for 8 processors and 8 GPUs, which no machine", replace(study, resources={"fit": Resources(gpus=8)}))
    with monkeypatch.context() as patch:
        patch.setattr(elsewhere, "versions", lambda: {"numpy": "1.0"})
        refused(r"runs other versions than this one: numpy .* instead of 1\.0; Python .* instead of nothing")
    with monkeypatch.context() as patch:
        ready = engine._ready_every_node
        there = {"folder": "/elsewhere"}
        patch.setattr(engine, ready.__name__, lambda ray, probe, study, most: ready(ray, replace(probe, **there), study, most=most))
        refused("does not see the workspace")

"""The engine slurm: scripts and dependencies against a small Slurm of this machine, and submitit's local executor."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from fake_slurm import FakeSlurm
from faulty import KINDS, Lengthy, divided_study, done, faulty_study, repeated
from refeed.core.errors import EngineError, StudyError
from refeed.studies import run
from refeed.studies.engines.arrays import arrays
from refeed.studies.resources import Resources
from refeed.studies.tasks import plan
from refeed.workspace import Workspace
from toy import Diverging, kept_study

pytest.importorskip("submitit")

from refeed.studies.engines.slurm import Slurm

QUICK = {"poll_seconds": 0.02, "minutes": 30}


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    with FakeSlurm(tmp_path_factory.mktemp("slurm")).running() as fake:
        yield fake


@pytest.fixture
def slurm(scheduler, monkeypatch):
    monkeypatch.setenv("PATH", f"{scheduler.folder / 'bin'}:{os.environ['PATH']}")
    return scheduler


def inline_scores(folder, **options):
    return run(faulty_study(folder / "inline", **options), workspace=folder / "inline-workspace").scores


def test_arrays_follow_the_graph(tmp_path):
    todo = plan(kept_study(seeds=(0, 1), generations=3, names=("replace", "accumulate")), Workspace(tmp_path / "w"))
    found = arrays(todo.pending)
    place = {task.key: number for number, array in enumerate(found) for task in array.tasks}
    assert set(place) == set(todo.pending)
    assert all(place[need] < place[key] for key, task in todo.pending.items() for need in task.after)
    described = [(array.title, len(array.tasks), [f"{how} {found[n].title}" for n, how in array.after.items()]) for array in found]
    assert described == [
        ("001-draw", 2, []),
        ("002-fit", 2, ["aftercorr 001-draw"]),
        ("003-sample", 2, ["aftercorr 002-fit"]),
        ("003-measure", 2, ["aftercorr 002-fit"]),
        ("004-fit", 4, ["afterany 003-sample"]),  # two lineages share a model of generation 1
        ("005-sample", 4, ["aftercorr 004-fit"]),
        ("005-measure", 4, ["aftercorr 004-fit"]),
        ("006-fit", 4, ["aftercorr 005-sample"]),
        ("007-sample", 4, ["aftercorr 006-fit"]),
        ("007-measure", 4, ["aftercorr 006-fit"]),
    ]
    assert max(len(array.tasks) for array in arrays(todo.pending, most=3)) == 3


def test_ten_lineages_give_the_bits_of_inline(slurm, tmp_path):
    study = faulty_study(tmp_path / "a", seeds=5, generations=2)
    events = []
    found = run(study, workspace=tmp_path / "w", engine=Slurm(**QUICK), listener=events.append)
    assert found.scores.equals(inline_scores(tmp_path, seeds=5, generations=2))
    assert len(study.arms) == 10
    assert not repeated(tmp_path / "a")
    assert sum(event.kind == "ended" for event in events) == sum(event.kind == "started" for event in events) == 65
    assert not (tmp_path / "w" / "jobs").exists() or not list((tmp_path / "w" / "jobs").iterdir())


def test_printed_scripts_are_those_that_are_submitted(slurm, tmp_path):
    study = replace(kept_study(seeds=(0,), generations=2), name="printed", resources={"fit": Resources(cpus=2)})
    engine = Slurm(**QUICK, partition="gpu", memory_gb=2, setup=("true",), sbatch={"reservation": "night"})
    store = Workspace(tmp_path / "w")
    printed = dict(engine.scripts(plan(study, store), store))
    assert "#SBATCH --partition=gpu" in printed["002-fit"]
    assert "#SBATCH --cpus-per-task=2" in printed["002-fit"]
    assert "export OMP_NUM_THREADS=2" in printed["002-fit"]
    assert "#SBATCH --reservation=night" in printed["003-sample"]
    run(study, workspace=store, engine=engine)
    submitted = {name.removeprefix("refeed-printed-"): text for name, text in slurm.scripts().items() if "printed" in name}
    assert list(printed) == list(submitted)
    numbers = sorted(int(path.stem) for path in slurm.folder.glob("*.sh"))[-len(printed) :]
    for title, text in printed.items():
        for place in sorted(range(len(numbers)), reverse=True):
            text = text.replace(f"$JOB_{place}", str(numbers[place]))
        # Quotes keep the shell from replacing $JOB_n, which is not there for a number.
        assert text.replace("'", "").replace("python -u", f"{sys.executable} -u") == submitted[title].replace("'", "")


def test_a_fit_over_several_devices_asks_for_a_processor_for_each(slurm, tmp_path):
    store = Workspace(tmp_path / "w")
    study = replace(kept_study(seeds=(0,), generations=1), resources={"fit": Resources(gpus=4)})
    printed = dict(Slurm(**QUICK).scripts(plan(study, store), store))
    assert {"#SBATCH --gpus-per-node=4", "#SBATCH --cpus-per-task=4"} <= set(printed["002-fit"].splitlines())
    assert "#SBATCH --cpus-per-task=1" in printed["001-draw"]


def test_a_job_killed_in_each_kind_of_step_is_submitted_again(slurm, tmp_path):
    study = faulty_study(tmp_path / "a", kill=KINDS, seeds=2, generations=2)
    found = run(study, workspace=tmp_path / "w", engine=Slurm(**QUICK))
    assert found.scores.equals(inline_scores(tmp_path, seeds=2, generations=2))
    assert sum(times - 1 for times in repeated(tmp_path / "a").values()) == len(KINDS)


def test_a_step_that_kills_every_job_is_named_and_the_others_go_on(slurm, tmp_path):
    study = kept_study(seeds=(0,), generations=3, learner=Diverging(how="killed"), names=("replace", "replace-multiple"))
    results = run(study, workspace=tmp_path / "w", engine=Slurm(**QUICK))
    ends = {(row["policy"], row["outcome"], row["generation"]) for row in results.outcomes.to_pylist()}
    assert ends == {("replace", "failed", 2), ("replace-multiple", "failed", 2)}
    assert "its job died 3 times (FAILED); its log is" in results.run["errors"][0]["traceback"]


def preempt(slurm, folder, line):
    """Preempt the job that runs when `line` first stands in the log; returns the thread, and the name of the job in a list."""
    preempted = []

    def wait():
        log = folder / "log"
        while not (log.exists() and log.read_text().count(line) > 2 * (line == "part")):
            time.sleep(0.01)
        preempted.append(next(name for name, state in slurm.states().items() if state == "RUNNING"))
        slurm.preempt(preempted[0])

    thread = Thread(target=wait)
    thread.start()
    return thread, preempted


def test_a_preempted_job_is_requeued_and_nothing_else_is_done_again(slurm, tmp_path):
    study = faulty_study(tmp_path / "a", seconds=0.5, seeds=1, generations=1)
    thread, preempted = preempt(slurm, tmp_path / "a", "fit")
    found = run(study, workspace=tmp_path / "w", engine=Slurm(**QUICK))
    thread.join()
    assert found.scores.equals(inline_scores(tmp_path, seeds=1, generations=1))
    assert [step.split()[0] for step in repeated(tmp_path / "a")] == ["fit"]
    assert slurm.states()[preempted[0]] == "COMPLETED"  # the same job, requeued


def test_a_preempted_fit_that_keeps_its_state_goes_on_from_there(slurm, tmp_path):
    study = faulty_study(tmp_path / "a", seconds=0.1, seeds=1, generations=1)
    lengthy = replace(study.cases[0], learner=Lengthy(faults=study.cases[0].learner.faults))
    thread, preempted = preempt(slurm, tmp_path / "a", "part")
    run(replace(study, cases=(lengthy,)), workspace=tmp_path / "w", engine=Slurm(**QUICK))
    thread.join()
    parts = {step: times for step, times in done(tmp_path / "a").items() if step.startswith("part")}
    assert len(parts) == 20
    assert sum(parts.values()) <= 21  # the part in which it was preempted
    assert slurm.states()[preempted[0]] == "COMPLETED"


@pytest.mark.parametrize("cluster", ["slurm", pytest.param("local", marks=pytest.mark.slow)])
def test_parts_of_samples_have_the_bytes_of_samples_drawn_at_once_and_a_killed_part_is_drawn_again(slurm, tmp_path, cluster):
    rows = {}
    for name, parts, kill in (("inline", 1, ()), ("slurm", 3, ("part",))):
        study = divided_study(tmp_path / name, parts=parts, kill=kill, seeds=1, generations=1 if cluster == "local" else 2)
        found = run(study, workspace=tmp_path / f"{name}-w", **({"engine": Slurm(**QUICK, cluster=cluster)} if kill else {}))
        files = (tmp_path / f"{name}-w" / "steps").glob("*/rows.parquet")
        rows[name] = found.scores.to_pylist(), {path.parent.name: path.read_bytes() for path in files}
    assert rows["slurm"] == rows["inline"]
    assert list(repeated(tmp_path / "slurm").values()) == [2]  # the part whose job was killed
    kinds = [step.split()[0] for step in done(tmp_path / "slurm")]
    assert (kinds.count("part"), kinds.count("sample")) == (3 * len(rows["inline"][1]), 0)
    assert not list((tmp_path / "slurm-w" / "partial").iterdir())


DRIVER = """
import sys
sys.path.insert(0, {tests!r})
from faulty import faulty_study
from refeed.studies import run
from refeed.studies.engines.slurm import Slurm
run(faulty_study({folder!r}, seconds=0.2, seeds=2, generations=2), workspace={workspace!r}, engine=Slurm(poll_seconds=0.02))
"""


def test_jobs_outlive_the_driver_and_another_attaches_to_them(slurm, tmp_path):
    folder, workspace = str(tmp_path / "a"), str(tmp_path / "w")
    code = DRIVER.format(tests=str(Path(__file__).parent.parent), folder=folder, workspace=workspace)
    study = faulty_study(folder, seconds=0.2, seeds=2, generations=2)
    tasks = plan(study, Workspace(tmp_path / "v")).tasks
    driver = subprocess.Popen([sys.executable, "-c", code])
    noted = tmp_path / "w" / "jobs" / study.digest[:12] / "jobs.json"
    while driver.poll() is None and not (noted.exists() and len(json.loads(noted.read_bytes())) == len(tasks)):
        time.sleep(0.01)
    driver.send_signal(signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL
    submitted = len(slurm.scripts())
    plans = []
    found = run(study, workspace=workspace, engine=Slurm(**QUICK), on_plan=plans.append)
    assert plans[0].pending
    assert found.scores.equals(inline_scores(tmp_path, seeds=2, generations=2))
    assert not repeated(folder)
    assert len(slurm.scripts()) == submitted


def test_what_cannot_work_is_one_error(slurm, tmp_path, monkeypatch):
    study = kept_study(seeds=(0,), generations=1)

    def refused(match, study=study, **options):
        with pytest.raises(EngineError, match=match):
            run(study, workspace=tmp_path / "w", engine=Slurm(**QUICK, **options))
        assert not list((tmp_path / "w" / "steps").iterdir())

    refused("sbatch refused the job array 001-draw: sbatch: error: invalid partition specified: nowhere", partition="nowhere")
    refused("sbatch refused .*unrecognized option '--partitoin'", sbatch={"partitoin": "gpu"})
    refused("Slurm gives whole GPUs, but resources.fit asks for 0.5", replace(study, resources={"fit": Resources(gpus=0.5)}))
    with monkeypatch.context() as patch:
        patch.setattr("refeed.studies.engines.slurm.versions", lambda: {"numpy": "1.0"})
        refused("runs other versions than this one: numpy .* instead of 1.0")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    refused("there is no sbatch here")
    with pytest.raises(EngineError, match="must be 'slurm' or 'local', not 'remote'"):
        Slurm(cluster="remote")
    for option in ("minutes", "memory_gb", "workers", "poll_seconds"):
        with pytest.raises(EngineError, match=rf"slurm\.{option} must be above zero, not 0\."):
            Slurm(**{option: 0})
    monkeypatch.setattr("refeed.studies.resources.visible_gpus", lambda: 0)
    with pytest.raises(StudyError, match=r"resources\.fit asks for 2 GPUs, but this machine has none\.\n.*resources\.fit\.gpus=0"):
        run(replace(study, resources={"fit": Resources(gpus=2)}), workspace=tmp_path / "w", engine=Slurm(cluster="local"))


def test_the_scripts_run_in_bash_from_the_command_line(tmp_path):
    fake = FakeSlurm(tmp_path / "slurm", bash=True)
    command = [
        sys.executable,
        "-c",
        "from refeed.cli import main; main()",
        "run",
        "linear-regression",
        "--engine",
        "slurm",
        "--json",
    ]
    small = ["seeds=2", "generations=2", "source.rows=50", "source.noise=1.0", "slurm.partition=cpu", "slurm.poll_seconds=0.1"]
    options = [word for text in small for word in ("--set", text)]
    environment = os.environ | {"PATH": f"{fake.folder / 'bin'}:{os.environ['PATH']}"}
    with fake.running():
        ran = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout)["run"]["engine"] == "slurm"
    assert list(fake.states().values()) == ["COMPLETED"]


def test_scripts_are_printed_where_there_is_no_slurm(tmp_path):
    command = [sys.executable, "-c", "from refeed.cli import main; main()", "plan", "language", "--scripts", "--engine"]
    printed = subprocess.run(
        [*command, "slurm", "--set", "slurm.partition=gpu"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert printed.returncode == 0, printed.stderr
    assert "#SBATCH --dependency='aftercorr:$JOB_" in printed.stdout
    assert printed.stdout.count("#SBATCH --partition=gpu") == printed.stdout.count("#!/bin/bash") > 3
    refused = subprocess.run([*command, "ray"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (refused.returncode, "the engine ray submits no scripts" in refused.stderr) == (2, True)


def test_submitits_local_executor_preempts_and_requeues(tmp_path):
    whole = faulty_study(tmp_path / "a", seconds=1.0, seeds=1, generations=1)
    study = replace(whole, cases=(replace(whole.cases[0], metrics=()),), policies={"replace": kept_study().policies["replace"]})
    jobs = tmp_path / "w" / "jobs" / study.digest[:12]

    def preempt_the_fit():
        log = tmp_path / "a" / "log"
        while not (log.exists() and "fit" in log.read_text()):
            time.sleep(0.01)
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if "submitit.core._submit" in command and str(jobs) in command:
                os.kill(int(process.name), signal.SIGUSR2)

    thread = Thread(target=preempt_the_fit)
    thread.start()
    run(study, workspace=tmp_path / "w", engine=Slurm(cluster="local", minutes=30, poll_seconds=0.05, workers=1))
    thread.join()
    assert not plan(study, Workspace(tmp_path / "w")).pending
    assert [step.split()[0] for step in repeated(tmp_path / "a")] == ["fit"]
    assert shutil.which("sbatch") is None

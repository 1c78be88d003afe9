"""A Slurm of one machine for tests: sbatch, srun, sacct, scontrol and scancel as programs, and a scheduler that keeps dependencies.

    fake = FakeSlurm(folder)      # programs in folder/bin, which belongs on PATH
    with fake.running(): ...

An element of an array is a fork of the scheduler, which has imported what jobs import; or (`bash=True`) its script, run by bash.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

KNOWN = {
    "account",
    "array",
    "constraint",
    "cpus-per-task",
    "dependency",
    "error",
    "gpus-per-node",
    "job-name",
    "kill-on-invalid-dep",
}
KNOWN |= {"mem", "nodes", "open-mode", "output", "partition", "qos", "requeue", "reservation", "signal", "time", "wckey"}
ENDED = ("COMPLETED", "FAILED", "CANCELLED")


class FakeSlurm:
    def __init__(self, folder: Path, *, bash: bool = False) -> None:
        self.folder, self.bash = folder, bash
        (folder / "bin").mkdir(parents=True)
        (folder / "states.json").write_text("{}")
        for program in ("sbatch", "srun", "sacct", "scontrol", "scancel"):
            path = folder / "bin" / program
            path.write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n")
            with path.open("a") as file:
                file.write(f"import fake_slurm\nsys.exit(fake_slurm.{program}({str(folder)!r}, sys.argv[1:]))\n")
            path.chmod(0o755)

    @contextmanager
    def running(self):
        command = [sys.executable, __file__, str(self.folder), *(["--bash"] if self.bash else [])]
        process = subprocess.Popen(command, env=os.environ | {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"})
        try:
            yield self
        finally:
            process.terminate()
            process.wait()

    def scripts(self) -> dict[str, str]:
        """What was submitted, by job name."""
        texts = [path.read_text() for path in sorted(self.folder.glob("*.sh"), key=lambda path: int(path.stem))]
        return {re.search("--job-name=(.*)", text)[1]: text for text in texts}

    def states(self) -> dict[str, str]:
        return json.loads((self.folder / "states.json").read_text())

    def preempt(self, element: str) -> None:
        """What Slurm sends when it takes a machine back."""
        process = int((self.folder / f"pid-{element}").read_text())
        os.kill(process, signal.SIGTERM)
        os.kill(process, signal.SIGUSR2)


# The programs -----------------------------------------------------------------------------------------------------------------


def options_of(text: str) -> dict[str, str]:
    lines = (shlex.split(line.removeprefix("#SBATCH --"))[0] for line in text.splitlines() if line.startswith("#SBATCH --"))
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def sbatch(folder: str, arguments: list[str]) -> int:
    text = Path(arguments[-1]).read_text()
    options = options_of(text)
    if unknown := set(options) - KNOWN:
        print(f"sbatch: unrecognized option '--{unknown.pop()}'", file=sys.stderr)
        return 1
    if options.get("partition") == "nowhere":
        print("sbatch: error: invalid partition specified: nowhere", file=sys.stderr)
        return 1
    number = 1
    while True:
        try:
            os.close(os.open(Path(folder) / f"{number}.taken", os.O_CREAT | os.O_EXCL))
            break
        except FileExistsError:
            number += 1
    temporary = Path(folder) / f"{number}.new"
    temporary.write_text(text)
    temporary.rename(Path(folder) / f"{number}.sh")
    print(f"Submitted batch job {number}")
    return 0


def srun(folder: str, arguments: list[str]) -> int:
    """As the real one in what submitit asks of it: `--unbuffered --output FILE --error FILE COMMAND...`."""
    assert arguments[0] == "--unbuffered"
    assert (arguments[1], arguments[3]) == ("--output", "--error")
    begin(Path(folder), *(resolved(path) for path in (arguments[2], arguments[4])))
    os.execvp(arguments[5], arguments[5:])


def resolved(pattern: str) -> str:
    job, index = (os.environ.get(name, "") for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"))
    return pattern.replace("%A", job).replace("%a", index).replace("%j", os.environ["SLURM_JOB_ID"]).replace("%t", "0")


def begin(folder: Path, output: str, error: str) -> None:
    for path, descriptor in ((output, 1), (error, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666), descriptor)
    job, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    (folder / f"pid-{f'{job}_{index}' if job else os.environ['SLURM_JOB_ID']}").write_text(str(os.getpid()))


def sacct(folder: str, arguments: list[str]) -> int:
    asked = {job for flag, job in itertools.pairwise(arguments) if flag == "-j"}
    print("JobID|State|NodeList")
    for element, state in json.loads((Path(folder) / "states.json").read_text()).items():
        if element.partition("_")[0] in asked:
            print(f"{element}|{state}|here")
    return 0


def scontrol(folder: str, arguments: list[str]) -> int:
    assert arguments[0] == "requeue"
    (Path(folder) / f"requeue-{arguments[1]}").touch()
    return 0


def scancel(folder: str, arguments: list[str]) -> int:
    for job in arguments:
        (Path(folder) / f"cancel-{job}").touch()
    return 0


# The scheduler ----------------------------------------------------------------------------------------------------------------


class Scheduler:
    def __init__(self, folder: Path, *, bash: bool, slots: int = 2) -> None:
        self.folder, self.bash, self.slots = folder, bash, slots
        self.jobs: dict[str, dict[str, str]] = {}
        self.states: dict[str, str] = {}
        self.running: dict[int, str] = {}

    def turn(self) -> None:
        while (path := self.folder / f"{len(self.jobs) + 1}.sh").exists():
            self.jobs[path.stem] = options = options_of(path.read_text())
            array = re.match(r"0-(\d+)%", options.get("array", ""))
            names = [f"{path.stem}_{i}" for i in range(int(array[1]) + 1)] if array else [path.stem]
            self.states |= dict.fromkeys(names, "PENDING")
        for path in self.folder.glob("cancel-*"):
            for element in self.of(path.name.partition("-")[2]):
                for process in [process for process, name in self.running.items() if name == element]:
                    os.kill(process, signal.SIGKILL)
                if self.states[element] == "PENDING":
                    self.states[element] = "CANCELLED"
        while self.running:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                break
            element = self.running.pop(process)
            requeue = self.folder / f"requeue-{element}"
            self.states[element] = "PENDING" if requeue.exists() else "FAILED" if status else "COMPLETED"
            requeue.unlink(missing_ok=True)
        for element, state in self.states.items():
            if state == "PENDING" and len(self.running) < self.slots:
                self.consider(element)
        temporary = self.folder / "states.new"
        temporary.write_text(json.dumps(self.states))
        temporary.rename(self.folder / "states.json")

    def of(self, job: str) -> list[str]:
        return [element for element in self.states if element.partition("_")[0] == job]

    def consider(self, element: str) -> None:
        job, _, index = element.partition("_")
        for dependency in filter(None, self.jobs[job].get("dependency", "").split(",")):
            how, other = dependency.split(":")
            waited = [f"{other}_{index}"] if how == "aftercorr" else self.of(other)
            assert waited, dependency
            assert all(name in self.states for name in waited), dependency
            if not all(self.states[name] in ENDED for name in waited):
                return
            if how == "aftercorr" and self.states[waited[0]] != "COMPLETED":
                assert self.jobs[job]["kill-on-invalid-dep"] == "yes"
                self.states[element] = "CANCELLED"
                return
        self.states[element] = "RUNNING"
        self.running[self.start(job, index)] = element

    def start(self, job: str, index: str) -> int:
        process = os.fork()
        if process:
            return process
        try:
            os.environ.update(SLURM_JOB_ID=job, SLURM_NTASKS="1", SLURM_JOB_NUM_NODES="1", SLURM_NODEID="0", SLURM_PROCID="0")
            os.environ.update(SLURM_LOCALID="0", SLURM_JOB_NODELIST="here")
            if index:
                os.environ.update(SLURM_ARRAY_JOB_ID=job, SLURM_ARRAY_TASK_ID=index, SLURM_JOB_ID=str(1000 * int(job) + int(index)))
            script = self.folder / f"{job}.sh"
            if self.bash:
                os.execvp("bash", ["bash", str(script)])
            run_without_bash(self.folder, script.read_text())
            os._exit(0)
        except SystemExit as end:
            os._exit(1 if end.code else 0)
        except BaseException:
            os._exit(1)


def run_without_bash(folder: Path, text: str) -> None:
    """What the script's lines say, in this process."""
    for line in text.splitlines():
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            os.environ[name] = value
        elif line.startswith("srun "):
            words = shlex.split(line)
            begin(folder, resolved(words[3]), resolved(words[5]))
            from submitit.core.submission import process_job

            process_job(words[-1])


def serve(folder: Path, *, bash: bool) -> None:
    if not bash:
        import pyarrow
        import submitit.core.submission  # noqa: F401

        from faulty import noted_moments  # noqa: F401
        from refeed.studies.environment import versions

        versions()
        pyarrow.array([0.5])  # imports pandas, where it is installed
        importlib.import_module("pyarrow.compute")
        importlib.import_module("pyarrow.parquet")
        importlib.import_module("refeed.studies.engines.slurm")
    scheduler = Scheduler(folder, bash=bash)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        while True:
            scheduler.turn()
            time.sleep(0.01)
    finally:
        for process in scheduler.running:
            os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), bash="--bash" in sys.argv)

"""All that a GPU is to be asked, in one run of at most eight minutes: tests, sampling, training, several devices.

    python benchmarks/gpu.py                                 # with a CUDA device; tables to stdout, numbers to gpu.json
    python benchmarks/gpu.py --sections sampling --presets gpt2-9m --minutes 3
    python benchmarks/gpu.py --tiny --device cpu             # whether this script works, in a minute on a processor

Needs this repository, torch and transformers; no network, and refeed need not be installed. Each section has a share of the time
and stops when it is used up; one that fails says why, and the others go on. What is left out is said.

tests     those marked gpu
sampling  the paper's models, trained briefly so that stories end: steps recorded as CUDA graphs, the same steps one by one,
          `transformers.generate` (one turn, being slow), and vLLM where it is installed. They take turns; all that
          one needs is counted: casting weights, caches, recording. Beside it the memory's limit: a token reads the keys and values
          before it, and weights are read once a step, by all stories; at the rate of a copy on the device.
training  the paper's models in bfloat16, at the paper's 32 stories a step and at many; over what the device multiplies at.
          With --compile also with blocks of the network compiled.
several   one fit by two processes or GPUs against one: DDP and FSDP2. Start-up is taken out by fits of two lengths.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import numpy as np
import torch
from sampling import CONTEXT, fitted, generated
from training import stories

from refeed.core import devices
from refeed.core.devices import Devices
from refeed.core.rows import Ragged
from refeed.core.seeds import Seed
from refeed.families.language import nets, packed_nets, presets
from refeed.families.language.layout import TrainingText
from refeed.families.language.learner import Llama
from refeed.families.language.model import LanguageModel
from refeed.families.language.sampler import NUMBER_BYTES, Ancestral, slots
from refeed.families.language.sampling import vllm, wave
from refeed.families.language.sampling.network import read
from refeed.families.language.training import DTYPES, gradients, num_weights

ROOT = Path(__file__).resolve().parents[1]
PRESETS = {
    "gpt2-9m": presets.gpt2_9m,
    "llama-12m": presets.llama_12m,
    "llama-42m": presets.llama_42m,
    "llama-126m": presets.llama_126m,
}
TINY = {"tiny": lambda **options: Llama(**{"width": 64, "layers": 2, "heads": 4, "context": 64, "feed_forward": 128} | options)}
SHARES = {"tests": 0.2, "sampling": 0.45, "training": 0.2, "several": 0.15}  # of the time
VOCABULARY = 8000
Found = dict[str, Any]


class Run:
    """Settings, the clock, and what was found so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.device, self.tiny = options, options.device, options.tiny
        self.learners = {name: PRESETS[name] for name in options.presets} if not self.tiny else TINY
        self.found: dict[str, list[Found]] = {}
        self._ends = 0.0

    def section(self, name: str, work: Callable[[Run], Iterator[Found]]) -> None:
        print(f"\n## {name}", flush=True)
        self._ends = time.perf_counter() + 60 * self.options.minutes * SHARES[name]
        self.found[name] = []
        try:
            for row in work(self):
                self.found[name].append(row)
                print("  " + ", ".join(f"{key} {_shown(value)}" for key, value in row.items()), flush=True)
        except Exception:
            self.found[name].append({"error": traceback.format_exc()})
            print(traceback.format_exc(), flush=True)
        _table(self.found[name])
        self.options.json.write_text(json.dumps(self.found, indent=2))
        _release(self.device)

    @property
    def seconds_left(self) -> float:
        return self._ends - time.perf_counter()


def machine(run: Run) -> Iterator[Found]:
    cuda = run.device == "cuda"
    yield {
        "device": torch.cuda.get_device_name() if cuda else "processor",
        "devices": torch.cuda.device_count() if cuda else os.cpu_count(),
        "torch": torch.__version__,
        "copy GB/s": copy_rate(run) / 1e9,
        **{f"{name} TFLOP/s": product_rate(run, dtype) / 1e12 for name, dtype in DTYPES.items()},
    }


def tests(run: Run) -> Iterator[Found]:
    if importlib.util.find_spec("pytest") is None:
        yield {"skipped": "pytest is not installed"}
        return
    folder = ROOT / "tests/families/language"
    files = [folder / "test_gpu.py", folder / "test_distributed.py"]
    # other conftests need more than torch; a warning of another version of torch is no failure here
    options = ["-q", "-m", "gpu", f"--confcutdir={folder}", "-o", "filterwarnings=default", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "pytest", *options, *map(str, files)]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, timeout=max(1.0, run.seconds_left), capture_output=True, text=True, check=False
    )
    print(done.stdout[-6000:], done.stderr[-2000:])
    yield {"exit code": done.returncode, "outcome": done.stdout.strip().rpartition("\n")[2]}


def sampling(run: Run) -> Iterator[Found]:
    with_vllm = not vllm.missing()
    if not with_vllm:
        yield {"contender": "vLLM", "skipped": "it is not installed"}
    for name, learner in run.learners.items():
        if run.seconds_left < 20 and not run.tiny:
            yield {"model": name, "skipped": "the time is used up"}
            continue
        steps, vocabulary = (20, 400) if run.tiny else (200, VOCABULARY)
        model = fitted(learner(steps=steps), vocabulary)
        model.net.to(run.device)
        for dtype in NUMBER_BYTES:
            yield from _contest(run, name, model, dtype, with_vllm=with_vllm)
        del model
        _release(run.device)


def _contest(run: Run, name: str, model: LanguageModel, dtype: str, *, with_vllm: bool) -> Iterator[Found]:
    """Turns of all contenders with one model in one format."""
    network = read(model.net)
    assert network is not None
    limit = model.context
    batch = 8 if run.tiny else slots(network, limit, dtype, "torch", run.device)
    theirs = 8 if run.tiny else run.options.generate_batch
    contenders: dict[str, Callable[[int], Ragged]] = {}

    def ours(seed: int, *, number: int = 2 * batch, engine: str = "torch") -> Ragged:
        sampler = Ancestral(engine=engine, device=run.device, dtype=dtype, batch=batch)
        return sampler.sample(model, number, world=None, seed=Seed(seed))["tokens"]  # type: ignore[arg-type, return-value]

    def one_by_one(seed: int) -> Ragged:
        with mock.patch.object(wave, "Recorded", lambda step: step):
            return ours(seed)

    if run.device == "cuda":
        contenders["refeed, recorded"] = ours
    contenders["refeed, steps one by one"] = one_by_one
    contenders["generate"] = lambda seed: generated(model, dtype, theirs)
    if with_vllm:
        contenders["vLLM"] = lambda seed: ours(seed, engine="vllm")
    ours(99, number=min(batch, 64))  # libraries are loaded
    for turn in range(run.options.rounds):
        for contender, work in list(contenders.items()):
            if contender == "generate" and turn:
                continue
            _release(run.device)
            if run.seconds_left < 0 and not run.tiny:
                yield {"model": name, "dtype": dtype, "contender": contender, "skipped": "the time is used up"}
                continue
            try:
                with _peak(run.device) as peak:
                    started = time.perf_counter()
                    tokens = work(turn)
                    seconds = time.perf_counter() - started
            except Exception as error:
                del contenders[contender]
                yield {"model": name, "dtype": dtype, "contender": contender, "error": f"{type(error).__name__}: {error}"}
                continue
            in_flight = theirs if contender == "generate" else batch
            most = _limit(run, model, network, tokens.lengths, dtype, in_flight)
            yield {
                "model": name,
                "dtype": dtype,
                "contender": contender,
                "stories": len(tokens),
                "in flight": in_flight,
                "tokens/s": len(tokens.values) / seconds,
                "of the memory's limit": len(tokens.values) / seconds / most,
                "GB": peak[0],
                "seconds": seconds,
            }


def _limit(run: Run, model: LanguageModel, network: Any, lengths: np.ndarray, dtype: str, in_flight: int) -> float:
    """Tokens a second if nothing took time but reading keys and values before a token and, once a step, the weights."""
    seen = float((lengths.astype(np.float64) ** 2).mean() / (2 * lengths.mean()))
    read_bytes = network.cache_bytes(1, NUMBER_BYTES[dtype]) * seen + num_weights(model.net) * NUMBER_BYTES[dtype] / in_flight
    return run.found["machine"][0]["copy GB/s"] * 1e9 / read_bytes


def training(run: Run) -> Iterator[Found]:
    texts = stories(200 if run.tiny else 20000)
    text = TrainingText([(Ragged.of(texts, np.uint16), 1.0)], context=CONTEXT, end=0)
    peak = run.found["machine"][0]["bfloat16 TFLOP/s"] * 1e12
    for name, learner in run.learners.items():
        for batch_stories in (4,) if run.tiny else (32, 512):
            for compiled in (False, True) if run.options.compile else (False,):
                if run.seconds_left < 5 and not run.tiny:
                    yield {"model": name, "stories a step": batch_stories, "skipped": "the time is used up"}
                    continue
                try:
                    with _compiled() if compiled else nullcontext():
                        rate, flops, gigabytes = _train(run, learner(), text, batch_stories)
                except Exception as error:
                    yield {"model": name, "stories a step": batch_stories, "error": f"{type(error).__name__}: {error}"}
                    continue
                yield {
                    "model": name,
                    "stories a step": batch_stories,
                    "compiled": compiled,
                    "tokens/s": rate,
                    "TFLOP/s": flops / 1e12,
                    "of what products reach": flops / peak,
                    "GB": gigabytes,
                }


def _train(run: Run, learner: Any, text: TrainingText, batch_stories: int) -> tuple[float, float, float]:
    """Tokens and FLOPs a second, and gigabytes, of steps in bfloat16 after some to warm up."""
    net = nets.build(learner.config(size=VOCABULARY, end=0), seed=0).to(run.device).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-4, weight_decay=0.1, fused=True)
    warm_up, num_steps = (1, 2) if run.tiny else (5, 20)
    tokens, flops, started = 0, 0.0, 0.0
    with _peak(run.device) as gigabytes:
        pieces = text.steps(10**6, batch_tokens=0, batch_stories=batch_stories, seed=Seed(0))
        for number in range(warm_up + num_steps):
            if number == warm_up:
                _wait(run.device)
                started = time.perf_counter()
            batches = text.batches(next(pieces), max_cells=4096 if run.device == "cpu" else 65536)
            loss = gradients(net, batches, dtype=torch.bfloat16)
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            loss.item()
            if number >= warm_up:
                own = sum(batch.num_tokens for batch in batches)
                squares = sum(rows * length**2 for batch in batches for _, rows, length in batch.groups)
                tokens += own
                flops += 6 * num_weights(net) * own + 6 * net.config.num_hidden_layers * net.config.hidden_size * squares
        _wait(run.device)
        seconds = time.perf_counter() - started
    return tokens / seconds, flops / seconds, gigabytes[0]


@contextmanager
def _compiled() -> Iterator[None]:
    """Blocks of the networks by torch.compile, all but attention, whose groups differ from step to step."""
    parts = {name: torch.compile(getattr(packed_nets, name), dynamic=True) for name in ("_gpt2_block", "_llama_block")}
    parts["_attention"] = torch.compiler.disable(packed_nets._attention)
    with mock.patch.multiple(packed_nets, **parts):
        yield


def several(run: Run) -> Iterator[Found]:
    count = torch.cuda.device_count() if run.device == "cuda" else 2
    if count < 2:
        yield {"skipped": "there is one GPU"}
        return
    short, more, batch = (2, 2, 8) if run.tiny else (20, 60, 512)
    for name, learner in list(run.learners.items())[-1:]:
        for kind, granted in {
            "one": Devices(),
            "DDP": Devices(count=count, sharded=False),
            "FSDP2": Devices(count=count, sharded=True),
        }.items():
            if run.seconds_left < 5 and not run.tiny:
                yield {"model": name, "kind": kind, "skipped": "the time is used up"}
                continue
            took = []
            for steps in (short, short + more):
                with devices.grant(granted):
                    started = time.perf_counter()
                    fitted(learner(steps=steps, batch_stories=batch, micro_tokens=65536), VOCABULARY)
                    took.append(time.perf_counter() - started)
            yield {
                "model": name,
                "kind": kind,
                "devices": granted.count,
                "stories/s": more * batch / (took[1] - took[0]),
                "start-up s": took[0],
            }


def copy_rate(run: Run) -> float:
    """Bytes a second, read and written, of a copy on the device: the best of five."""
    source = torch.zeros((1 << 26) if run.tiny else (1 << 31), dtype=torch.uint8, device=run.device)
    target = torch.empty_like(source)
    return 2 * source.numel() / _best(run, lambda: target.copy_(source))


def product_rate(run: Run, dtype: torch.dtype) -> float:
    """FLOP/s of a product of two square matrices of random numbers: the best of five."""
    size = 512 if run.tiny else 8192
    a = torch.randn(size, size, device=run.device).to(dtype)
    return 2 * size**3 / _best(run, lambda: a @ a)


def _best(run: Run, work: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(6):
        _wait(run.device)
        started = time.perf_counter()
        work()
        _wait(run.device)
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _release(device: str) -> None:
    if device == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def _peak(device: str) -> Iterator[list[float]]:
    """Gigabytes of the device that were taken inside the block; 0 on a processor."""
    found = [0.0]
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    yield found
    if device == "cuda":
        found[0] = torch.cuda.max_memory_allocated() / 1e9


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def _table(rows: list[Found]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    print("\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        cells = (_shown(row.get(column, "")).strip().rpartition("\n")[2].replace("|", "/") for column in columns)
        print("| " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a small network in the place of the paper's")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--sections", nargs="+", choices=list(SHARES), default=list(SHARES))
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=list(PRESETS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--generate-batch", type=int, default=1024, help="of transformers.generate")
    parser.add_argument("--compile", action="store_true", help="train with compiled blocks as well")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    run = Run(parser.parse_args())
    if run.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch sees no CUDA device here; type --tiny --device cpu to try the script")
    SHARES["machine"] = 0.0
    run.section("machine", machine)
    for name in run.options.sections:
        run.section(name, {"tests": tests, "sampling": sampling, "training": training, "several": several}[name])


if __name__ == "__main__":
    main()

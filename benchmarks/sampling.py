"""Stories a second: `transformers.generate`, our PyTorch and native engines, vLLM where it is installed, and the memory's limit.

    python benchmarks/sampling.py                          # 10,000 stories by each native engine; about half an hour on one thread
    python benchmarks/sampling.py --stories 400 --rounds 1 --torch-stories 32 --steps 20      # a look, three minutes

The model is trained first, briefly, on stories of the grammar strung together to lengths N(200, 60), so that stories end where
trained weights end them. Contenders take turns in one process, round by round. All that one needs is counted in its time: casting
and packing weights, opening caches, the start of vLLM's process every time it is asked, and once the compilation of the native
engine; the last two are shown by themselves as well.
Tokens are useful tokens, up to and including the end of a story. `generate` runs at the best of its batch sizes, found beforehand.
The limit is the time it takes to do nothing but read the keys and values of stories, up to their own lengths, in the layout of
the native engine's bfloat16 cache.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from refeed.core.loop import Lineage
from refeed.core.protocols import Data
from refeed.core.rows import Ragged, Rows
from refeed.core.seeds import Seed
from refeed.core.shards import Pool
from refeed.families.language.grammar import END_TOKEN, grammar
from refeed.families.language.learner import GPT2, Llama
from refeed.families.language.lexicon import WORDS
from refeed.families.language.model import LanguageModel
from refeed.families.language.sampler import Ancestral, slots
from refeed.families.language.sampling import native, vllm
from refeed.families.language.sampling.network import read
from refeed.families.language.source import LanguageWorld, StoryGrammar
from refeed.families.language.vocabulary import WordTokenizer
from refeed.policies import replace

SHAPES: dict[str, tuple[type, int, dict[str, int]]] = {  # learner, vocabulary, shape
    "gpt2-9m-4k": (GPT2, 4096, {"width": 256, "layers": 10, "heads": 4, "feed_forward": 1024}),
    "paper-gpt2-9m": (GPT2, 8000, {"width": 256, "layers": 8, "heads": 4, "feed_forward": 1024}),
    "paper-llama-12m": (Llama, 8000, {"width": 256, "layers": 8, "heads": 4, "feed_forward": 1024}),
    "tiny": (Llama, 305, {"width": 64, "layers": 2, "heads": 4, "feed_forward": 176}),
}
CONTEXT = 512
READ = r"""
#include <cstdint>
#include <thread>
#include <vector>
typedef uint64_t Line __attribute__((vector_size(64)));
Line sink[64 * 8];
extern "C" void sweep(const char* cache, const int32_t* position, int slots, int layers, long span, long row, int threads,
                      int times) {
    auto work = [=](int thread) {
        Line a{}, b{}, c{}, d{};
        for (int n = 0; n < times * slots; n++)
            if (const int s = n % slots; s % threads == thread)
                for (int h = 0; h < 2 * layers; h++) {  // keys and values of each layer
                    const char* from = cache + (long(s) * 2 * layers + h) * span * row;
                    for (long i = 0; i + 256 <= position[s] * row; i += 256) {
                        a ^= *(const Line*)(from + i), b ^= *(const Line*)(from + i + 64);
                        c ^= *(const Line*)(from + i + 128), d ^= *(const Line*)(from + i + 192);
                    }
                }
        sink[8 * thread] = a ^ b ^ c ^ d;
    };
    std::vector<std::thread> others;
    for (int i = 1; i < threads; i++) others.emplace_back(work, i);
    work(0);
    for (auto& other : others) other.join();
}
"""


def trained(name: str, steps: int) -> LanguageModel:
    """A model of that shape, trained on stories of N(200, 60) tokens."""
    learner_of, vocabulary, shape = SHAPES[name]
    learner = learner_of(**shape, context=CONTEXT, steps=steps, batch_tokens=1024, learning_rate=2e-3)
    return fitted(learner, vocabulary)


def fitted(learner: Any, vocabulary: int) -> LanguageModel:
    """What the learner makes of stories of N(200, 60) tokens: those of the grammar, end to end."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.normal(200, 60, 3000), 20, learner.context - 2).astype(int)
    words = grammar(zipf=1.0, sentences=8).sample(20000, rng).values
    words = words[words != END_TOKEN][: lengths.sum()]
    stories = [np.append(piece, END_TOKEN) for piece in np.split(words, np.cumsum(lengths)[:-1])]
    rows = Rows(tokens=Ragged.of(stories, np.uint16))
    tokenizer = WordTokenizer([*WORDS, *(f"<{i}>" for i in range(vocabulary - len(WORDS)))])
    assert tokenizer.end == END_TOKEN
    world = LanguageWorld(train=rows, test=rows, tokenizer=tokenizer)
    parts = {"learner": None, "sampler": None, "metrics": (), "policy": replace(), "seed": Seed(0)}
    pool = Pool.of(Lineage(source=StoryGrammar(rows=len(rows)), **parts).draw.shard)  # type: ignore[arg-type]
    data = Data(pool, rows_of=lambda part: rows, statistic_of=lambda shard, statistic: statistic(rows))
    return learner.fit(data, world=world, seed=Seed(0))


class Turns:
    """Tokens, CPU seconds and wall seconds of each contender."""

    def __init__(self) -> None:
        self.spent: dict[str, list[np.ndarray]] = {}

    def take(self, name: str, work: Callable[[], tuple[int, int]]) -> None:
        wall, cpu = time.perf_counter(), cpu_seconds()
        stories, tokens = work()
        cost = np.array([stories, tokens, cpu_seconds() - cpu, time.perf_counter() - wall])
        self.spent.setdefault(name, []).append(cost)
        print(
            f"  {name:24s} {stories:6d} stories  {tokens / cost[2]:8.0f} tokens/CPU-s  {tokens / cost[3]:8.0f} tokens/s", flush=True
        )

    def total(self, name: str) -> np.ndarray:
        return np.sum(self.spent[name], axis=0)

    def rate(self, name: str) -> float:
        """Tokens a CPU second, over all turns."""
        return float(self.total(name)[1] / self.total(name)[2])


def cpu_seconds() -> float:
    """Of this process and of those that it started and that ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)


def generated(model: LanguageModel, dtype: str, batch: int) -> Ragged:
    """One batch of `transformers.generate`, pure ancestral sampling, cast included, where the model is."""
    import copy

    from transformers import GenerationConfig

    end = model.tokenizer.end
    settings = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=model.context - 1, use_cache=True,
        bos_token_id=end, eos_token_id=end, pad_token_id=end,
    )  # fmt: skip

    net = model.net if dtype == "float32" else copy.deepcopy(model.net).to(getattr(torch, dtype))
    prompt = torch.full((batch, 1), end, device=net.device)
    with torch.inference_mode():
        new = net.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=settings)[:, 1:].cpu().numpy()
    ended = new == end
    length = np.where(ended.any(axis=1), ended.argmax(axis=1) + 1, new.shape[1])
    return Ragged(new[np.arange(new.shape[1]) < length[:, None]], np.concatenate([[0], np.cumsum(length)]))


def generate(model: LanguageModel, dtype: str, batch: int) -> Callable[[], tuple[int, int]]:
    return lambda: (batch, len(generated(model, dtype, batch).values))


def sample(model: LanguageModel, stories: int, seed: int, **options: Any) -> Callable[[], tuple[int, int]]:
    def work() -> tuple[int, int]:
        rows = Ancestral(**options).sample(model, stories, world=None, seed=Seed(seed))["tokens"]  # type: ignore[arg-type]
        return stories, len(rows.values)

    return work


def sweeps(model: LanguageModel, lengths: np.ndarray, slots: int, threads: int) -> tuple[Callable[[], tuple[int, int]], float]:
    """Reads the caches of `slots` stories in flight, again and again, a story's once a token; and the bytes of one such read."""
    network = read(model.net)
    assert network is not None
    folder = Path(tempfile.mkdtemp())
    (folder / "read.cpp").write_text(READ)
    subprocess.run([str(native.compiler()), *native.FLAGS, str(folder / "read.cpp"), "-o", str(folder / "read.so")], check=True)
    library = ctypes.CDLL(str(folder / "read.so"))
    library.sweep.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int] * 2, *[ctypes.c_long] * 2, *[ctypes.c_int] * 2]
    rng = np.random.default_rng(0)
    longer = rng.choice(lengths, slots, p=lengths / lengths.sum())  # a story in flight is met as often as it is long
    position = (rng.random(slots) * longer + 1).astype(np.int32)
    span, row, layers = CONTEXT + 16, 2 * network.kv_heads * network.head_size, len(network.layers)
    cache = np.ones(slots * 2 * layers * span * row + 64, dtype=np.uint8)
    times = max(1, int(2e10 / (position.sum() * 2 * layers * row)))

    def work() -> tuple[int, int]:
        start = cache.ctypes.data + -cache.ctypes.data % 64
        library.sweep(start, position.ctypes.data, slots, layers, span, row, threads, times)
        return slots, times * slots

    return work, float(position.mean() * 2 * layers * row)


def best_batch(model: LanguageModel, dtype: str, batches: list[int]) -> int:
    trial = Turns()
    for batch in batches:
        trial.take(f"generate {dtype} {batch}", generate(model, dtype, batch))
    return max(batches, key=lambda batch: trial.rate(f"generate {dtype} {batch}"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="gpt2-9m-4k")
    parser.add_argument("--steps", type=int, default=100, help="training steps of 1024 tokens")
    parser.add_argument("--stories", type=int, default=10000, help="by each native engine")
    parser.add_argument("--float32-stories", type=int, default=None, help="by the native engine in float32, if not as many")
    parser.add_argument("--torch-stories", type=int, default=None, help="by each PyTorch engine; a tenth unless given")
    parser.add_argument("--vllm-stories", type=int, default=None, help="by vLLM in each format; as many as by PyTorch unless given")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16, 32], help="of generate")
    parser.add_argument("--batch", type=int, default=None, help="stories in flight of refeed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", type=Path, default=None, help="folder to keep the trained model in, or to take it from")
    parser.add_argument("--json", type=Path, default=None)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    if a.model and (a.model / "config.json").exists():
        model = LanguageModel.load(a.model)
    else:
        model = trained(a.shape, a.steps)
        if a.model:
            a.model.mkdir(parents=True, exist_ok=True)
            model.save(a.model)
    lengths = Ancestral().sample(model, 300, world=None, seed=Seed(9))["tokens"].lengths  # type: ignore[arg-type]
    network = read(model.net)
    assert network is not None
    parameters = sum(p.numel() for p in model.net.parameters())
    print(f"{parameters:,} parameters; stories of {lengths.mean():.0f} +- {lengths.std():.0f} tokens")
    print("batch sizes of generate, one batch each:")
    batches = {dtype: best_batch(model, dtype, a.batches) for dtype in ("float32", "bfloat16")}
    in_flight = a.batch or slots(network, CONTEXT, "bfloat16", "native")
    limit, swept = sweeps(model, lengths, in_flight, a.threads)
    turns = Turns()
    amounts = {("native", "bfloat16"): a.stories, ("native", "float32"): a.float32_stories or a.stories}
    amounts |= {("torch", dtype): a.torch_stories or max(1, a.stories // 10) for dtype in ("float32", "bfloat16")}
    engines = ["torch", "native"]
    if not vllm.missing():
        engines.append("vllm")
        amounts |= {("vllm", dtype): a.vllm_stories or amounts["torch", dtype] for dtype in ("float32", "bfloat16")}
    for number in range(a.rounds):
        print(f"round {number + 1} of {a.rounds}")
        for dtype in ("float32", "bfloat16"):
            turns.take(f"generate {dtype}", generate(model, dtype, batches[dtype]))
            for engine in engines:
                count = amounts[engine, dtype] // a.rounds
                turns.take(f"{engine} {dtype}", sample(model, count, number, engine=engine, dtype=dtype, batch=a.batch))
        turns.take("reading the cache", limit)
    compiled = _compile_seconds()
    print(f"\ncompiling the native engine, once a machine: {compiled[0]:.1f} CPU-s")
    if "vllm" in engines:
        begun = Turns()
        begun.take("vllm start", sample(model, 1, 0, engine="vllm", max_tokens=1))
        print(f"starting vLLM, every time it is asked: {begun.total('vllm start')[2]:.1f} CPU-s")
    print(f"{in_flight} stories in flight, {a.threads} threads\n")
    print("| | stories | tokens/CPU-s | tokens/s | of generate float32 | of generate bfloat16 |\n|---|---|---|---|---|---|")
    for name in turns.spent:
        if name == "reading the cache":
            continue
        stories, tokens, cpu, wall = turns.total(name)
        if name.startswith("native"):
            cpu, wall = cpu + compiled[0], wall + compiled[1]
        ratios = [f"{tokens / cpu / turns.rate(f'generate {dtype}'):.1f}" for dtype in ("float32", "bfloat16")]
        label = f"{name}, batch {batches[name.split()[1]]}" if name.startswith("generate") else name
        print(f"| {label} | {stories:.0f} | {tokens / cpu:.0f} | {tokens / wall:.0f} | {' | '.join(ratios)} |")
    # the stories in flight of the sweep are a small sample: on average a token reads E[n^2] / 2 E[n] positions
    size = float((lengths**2).mean() / (2 * lengths.mean())) * 4 * len(network.layers) * network.kv_heads * network.head_size
    rate = swept * turns.rate("reading the cache")
    print(
        f"\nreading: {size / 1e6:.2f} MB a token at {rate / 1e9:.1f} GB/CPU-s, so at most {rate / size:.0f} tokens/CPU-s;", end=" "
    )
    print(f"native bfloat16 reaches {turns.rate('native bfloat16') * size / rate:.0%} of it")
    if a.json:
        a.json.write_text(json.dumps({name: turns.total(name).tolist() for name in turns.spent}, indent=2))


def _compile_seconds() -> tuple[float, float]:
    """CPU and wall seconds of the first use on a machine, measured by compiling again."""
    with tempfile.TemporaryDirectory() as folder:
        spent, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        native.compile_to(Path(folder) / "decode.so")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - spent.ru_utime - spent.ru_stime, time.perf_counter() - started


if __name__ == "__main__":
    main()

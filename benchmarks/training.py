"""Training speed: Hugging Face's Trainer as shipped, a loop over its model that is already packed and bfloat16, and refeed.

    python benchmarks/training.py --learner gpt2-9m --rounds 5

The three take turns in one process, a few steps each, on stories of N(200, 60) random tokens out of 8000 (speed does not depend on
the text), weights and AdamW moments of their own, the same configuration, one thread. Rates count real tokens, no padding, over the
steps after the first of each turn; the table gives the median over rounds, by wall clock and by processor time, and ratios of the
same round.

    trainer   transformers.Trainer: float32, 8 stories a step, padded to the longest in the batch
    packed    stories joined with the end token and cut into 8 rows of 512, bfloat16 autocast, fused AdamW: its best
    refeed    4096 tokens a step, with the precision and the schedule of the learner

Needs accelerate, which the Trainer asks for: pip install 'refeed[bench]'.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch

from refeed import catalogue
from refeed.core.rows import Ragged
from refeed.core.seeds import Seed
from refeed.families.language import FAMILY, nets
from refeed.families.language.layout import TrainingText
from refeed.families.language.training import DTYPES, gradients

VOCABULARY, CONTEXT, END = 8000, 512, 0
Mark = tuple[float, float, int]  # when a step ended, by the wall and by the processor; its real tokens
Turn = Callable[[int], Iterable[Mark]]  # so many steps


def stories(count: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.normal(200, 60, count), 20, CONTEXT - 1).astype(int)
    return [[*rng.integers(1, VOCABULARY, length).tolist(), END] for length in lengths]


def trainer(config: Any, texts: list[list[int]]) -> Turn:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    net, seen = nets.build(config, seed=0), []

    def collate(batch: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in batch)
        ids, labels = torch.full((len(batch), longest), END), torch.full((len(batch), longest), -100)
        mask = torch.zeros(len(batch), longest, dtype=torch.long)
        for place, row in enumerate(batch):
            size = len(row["input_ids"])
            ids[place, :size] = labels[place, :size] = torch.tensor(row["input_ids"])
            mask[place, :size] = 1
        seen.append(int(mask.sum()))
        return {"input_ids": ids, "labels": labels, "attention_mask": mask}

    def turn(num_steps: int) -> Iterator[Mark]:
        marks: list[tuple[float, float]] = []

        class Clock(TrainerCallback):
            def on_step_end(self, *_: Any, **__: Any) -> None:
                marks.append(clock())

        seen.clear()
        arguments = TrainingArguments(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=8,
            max_steps=num_steps,
            learning_rate=5e-4,
            weight_decay=0.1,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        rows = [{"input_ids": text} for text in texts]
        Trainer(model=net, args=arguments, train_dataset=rows, data_collator=collate, callbacks=[Clock()]).train()
        yield from ((*mark, tokens) for mark, tokens in zip(marks, seen, strict=False))

    return turn


def packed(config: Any, texts: list[list[int]]) -> Turn:
    net = nets.build(config, seed=0).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-4, weight_decay=0.1, fused=True)
    flat = torch.tensor([token for text in texts for token in text])
    rows = flat[: len(flat) // CONTEXT * CONTEXT].view(-1, CONTEXT)

    def turn(num_steps: int) -> Iterator[Mark]:
        for _ in range(num_steps):
            ids = rows[torch.randint(len(rows), (8,))]
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = net(input_ids=ids, labels=ids, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            loss.item()
            yield (*clock(), ids.numel())

    return turn


def refeed(config: Any, texts: list[list[int]], precision: str) -> Turn:
    net = nets.build(config, seed=0).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-4, weight_decay=0.1, fused=True)
    text = TrainingText([(Ragged.of(texts, np.uint16), 1.0)], context=CONTEXT, end=END)
    steps = text.steps(10**6, batch_tokens=4096, batch_stories=None, seed=Seed(0))

    def turn(num_steps: int) -> Iterator[Mark]:
        for _ in range(num_steps):
            batches = text.batches(next(steps), max_cells=4096)
            loss = gradients(net, batches, dtype=DTYPES[precision])
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            loss.item()
            yield (*clock(), sum(batch.num_tokens for batch in batches))

    return turn


def clock() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def rates(turn: Turn, num_steps: int) -> tuple[float, float]:
    """Real tokens a second, by wall clock and by processor time, of the steps after the first."""
    marks = list(turn(num_steps))
    tokens = sum(mark[2] for mark in marks[1:])
    return tokens / (marks[-1][0] - marks[0][0]), tokens / (marks[-1][1] - marks[0][1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--learner", default="gpt2-9m")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    learner = catalogue.build(options.learner, FAMILY.learners, "learner")
    config, texts = learner.config(size=VOCABULARY, end=END), stories(2000)
    contestants = {
        "HF Trainer, float32, padded": trainer(config, texts),
        "HF loop, bfloat16, packed": packed(config, texts),
        "refeed, bfloat16": refeed(config, texts, "bfloat16"),
        "refeed, float32": refeed(config, texts, "float32"),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name, turn in contestants.items():
            found[name].append(rates(turn, options.steps))
    print(f"| {options.learner} | tokens/s | tokens/CPU-s | over the Trainer | over the packed loop |\n|---|---|---|---|---|")
    first, second = list(contestants)[:2]
    for name, ours in found.items():
        pairs = (zip(ours, found[other], strict=True) for other in (first, second))
        over = [statistics.median(mine[1] / base[1] for mine, base in pair) for pair in pairs]
        wall, cpu = (statistics.median(rate[kind] for rate in ours) for kind in (0, 1))
        print(f"| {name} | {wall:,.0f} | {cpu:,.0f} | {over[0]:.2f} | {over[1]:.2f} |")


if __name__ == "__main__":
    main()

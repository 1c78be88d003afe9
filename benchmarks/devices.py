"""One fit over several processes on processors, beside one process with as many threads: seconds a step, and to begin.

    [GOMP_SPINCOUNT=300000] python benchmarks/devices.py --learner gpt2-9m --rounds 5

Contenders take turns, in an order that moves on by one each round. Each turn is two whole fits as a study does them, one of a
single step and one of `steps` more: their difference is what steps take, the first what it takes to begin, processes started and
network built. Stories of 200 random tokens out of 8000 (speed does not depend on the text), the learner's own batch and precision.
The table gives medians over rounds; the speed-up is of the same round, with its least and greatest. Processor time counts all
processes and threads. How long threads that wait for each other spin is what the command line tells them, unless
the environment does; 300000 is the default of GNU's OpenMP.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from dataclasses import replace
from itertools import count

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from refeed.core.devices import ONE, Devices, grant, threads

os.environ |= threads(1)  # before PyTorch starts

import torch

from refeed import catalogue
from refeed.core.memory import Memory
from refeed.core.seeds import Seed
from refeed.core.shards import Pool
from refeed.core.steps import Draw, Fit
from refeed.families.language import FAMILY
from refeed.families.language.calibration import Noise

LENGTH, VOCABULARY, STORIES = 200, 8000, 2048
Seconds = tuple[float, float]  # by the wall, and of processors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--learner", default="gpt2-9m")
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    learner = catalogue.build(options.learner, FAMILY.learners, "learner")
    draw, memory, numbers = Draw(Noise(row_tokens=LENGTH, vocabulary=VOCABULARY, rows=STORIES), Seed(0)), Memory(), count()
    memory.realise(draw)

    def fit(steps: int, devices: Devices, num_threads: int) -> Seconds:
        torch.set_num_threads(num_threads)
        wall, processors = time.perf_counter(), sum(os.times()[:4])
        with grant(devices):
            memory.realise(Fit(replace(learner, steps=steps), Pool.of(draw.shard), draw, Seed(next(numbers))))
        return time.perf_counter() - wall, sum(os.times()[:4]) - processors

    many = options.devices
    contenders = {
        "one process, one thread": (ONE, 1),
        f"one process, {many} threads": (ONE, many),
        f"{many} processes, DDP": (Devices(count=many, sharded=False), 1),
        f"{many} processes, FSDP2": (Devices(count=many, sharded=True), 1),
    }
    begins: dict[str, list[Seconds]] = {name: [] for name in contenders}
    steps: dict[str, list[Seconds]] = {name: [] for name in contenders}
    fit(1, ONE, many)  # what is imported and built once
    for number in range(options.rounds):
        names = list(contenders)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            first, whole = fit(1, *contenders[name]), fit(1 + options.steps, *contenders[name])
            begins[name].append(first)
            steps[name].append(((whole[0] - first[0]) / options.steps, (whole[1] - first[1]) / options.steps))
    print(f"| {options.learner} | a step | processor time | speed-up | to begin | processor time |\n|---|---|---|---|---|---|")
    base = steps[next(iter(contenders))]
    for name, found in steps.items():
        faster = sorted(one[0] / ours[0] for one, ours in zip(base, found, strict=True))
        step, begin = ([statistics.median(column) for column in zip(*pairs, strict=True)] for pairs in (found, begins[name]))
        ratio = f"{statistics.median(faster):.2f} ({faster[0]:.2f} to {faster[-1]:.2f})"
        print(f"| {name} | {step[0]:.2f} s | {step[1]:.2f} s | {ratio} | {begin[0]:.1f} s | {begin[1]:.1f} s |")


if __name__ == "__main__":
    main()

"""The training loop of language models: AdamW over packed stories, resumable inside an epoch to the last bit."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from refeed.core import progress
from refeed.core.checkpoints import Checkpoints
from refeed.core.errors import Stopped
from refeed.core.seeds import Seed
from refeed.families.language import packed_nets
from refeed.families.language.layout import Batch, TrainingText

if TYPE_CHECKING:
    from refeed.families.language.learner import Trained

log = logging.getLogger("refeed")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def device() -> torch.device:
    """A CUDA device where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train(
    net: Any,
    text: TrainingText,
    *,
    learner: Trained,
    num_steps: int,
    seed: Seed,
    watch: Callable[[], float] | None = None,
) -> list[float]:
    """Train `net` in place for `num_steps` steps over `text`, by what `learner` says.

    Returns what `watch()` said after each of `learner.curve` equal shares of the steps.
    """
    where = device()
    net.to(where).train()
    dtype = _checked(learner.precision, where)
    optimizer = _adamw(net, learner)
    checkpoints, gauge = Checkpoints(), _Gauge(net, dtype)
    first, curve = _resume(net, optimizer, checkpoints)
    watched = {round(num_steps * point / learner.curve) for point in range(1, learner.curve + 1)} if watch else set()
    steps = text.steps(num_steps, batch_tokens=learner.batch_tokens, batch_stories=learner.batch_stories, seed=seed, first=first)
    for step, pieces in enumerate(steps, start=first):
        rate = learner.learning_rate * schedule(step, num_steps, warm_up=learner.warm_up, shape=learner.schedule)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batches = text.batches(pieces, max_cells=learner.micro_tokens)
        loss = gradients(net, batches, dtype=dtype)
        if not math.isfinite(value := loss.item()):
            raise Stopped("diverged", f"the training loss became {value} at step {step + 1} of {num_steps}")
        torch.nn.utils.clip_grad_norm_(net.parameters(), learner.clip)
        optimizer.step()
        optimizer.zero_grad()
        progress.tick(step + 1, num_steps, "steps", gauge.read(value, batches) if progress.heard() else "")
        if watch is not None and step + 1 in watched:
            net.eval()
            curve.append(watch())
            net.train()
        if checkpoints.due and step + 1 < num_steps:
            checkpoints.keep(step + 1, lambda path, done=step + 1: _save(net, optimizer, done, curve, path))  # type: ignore[misc]
    net.to("cpu").eval()
    if not all(torch.isfinite(parameter).all() for parameter in net.parameters()):
        raise Stopped("non-finite", "the fitted weights hold NaN or infinite values")
    return curve


def gradients(net: Any, batches: Sequence[Batch], *, dtype: torch.dtype) -> Tensor:
    """Add the gradient of the mean nats a token over all `batches` to the parameters'; returns that mean."""
    num_tokens = sum(batch.num_tokens for batch in batches)
    total = torch.zeros((), device=net.device)
    for batch in batches:
        inputs, targets, weights = (
            torch.from_numpy(array).to(net.device, non_blocking=True) for array in (batch.inputs, batch.targets, batch.weights)
        )
        loss = packed_nets.loss(net, inputs, targets, weights / num_tokens, batch.groups, dtype=dtype)
        loss.backward()
        total += loss.detach()
    return total


def schedule(step: int, num_steps: int, *, warm_up: float, shape: str = "cosine") -> float:
    """The learning rate at a step, as a share of its peak: linear up to it, then a cosine or a line to zero."""
    rising = max(1, round(warm_up * num_steps))
    if step < rising:
        return (step + 1) / rising
    done = (step - rising) / max(1, num_steps - rising)
    return 1 - done if shape == "linear" else 0.5 * (1 + math.cos(math.pi * done))


def _adamw(net: Any, learner: Trained) -> torch.optim.AdamW:
    matrices = [parameter for parameter in net.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in net.parameters() if parameter.ndim <= 1]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": learner.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=learner.learning_rate,
        betas=(0.9, 0.95),
        fused=True,
    )


def _checked(precision: str, where: torch.device) -> torch.dtype:
    if precision == "bfloat16" and where.type == "cpu" and not torch.cpu._is_avx512_bf16_supported():
        log.warning("This processor has no bfloat16 arithmetic: learner.precision = 'bfloat16' is slower than float32 on it.")
    return DTYPES[precision]


def _save(net: Any, optimizer: torch.optim.AdamW, done: int, curve: list[float], path: Path) -> None:
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for number, parameter in enumerate(net.parameters()):
        state = optimizer.state[parameter]
        tensors |= {f"{number}.value": parameter.data, f"{number}.mean": state["exp_avg"], f"{number}.square": state["exp_avg_sq"]}
    about = {"steps": str(done), "curve": json.dumps(curve)}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=about)


def _resume(net: Any, optimizer: torch.optim.AdamW, checkpoints: Checkpoints) -> tuple[int, list[float]]:
    """Put back the state that an interrupted fit kept; returns how many steps it had done, and its curve so far."""
    from safetensors import safe_open

    path = checkpoints.newest()
    if path is None:
        return 0, []
    with safe_open(path, framework="pt", device=str(net.device)) as kept:
        about = kept.metadata()
        done, curve = int(about["steps"]), json.loads(about["curve"])
        for number, parameter in enumerate(net.parameters()):
            parameter.data.copy_(kept.get_tensor(f"{number}.value"))
            optimizer.state[parameter] = {
                "step": torch.tensor(float(done), device=parameter.device),
                "exp_avg": kept.get_tensor(f"{number}.mean"),
                "exp_avg_sq": kept.get_tensor(f"{number}.square"),
            }
    return done, curve


@dataclass
class _Gauge:
    """Loss, tokens a second, and model-FLOP utilisation: what the model's products took over what this machine multiplies at."""

    net: Any
    dtype: torch.dtype
    _seen: float = field(default_factory=time.perf_counter)
    _rate: float = 0.0

    def read(self, loss: float, batches: Sequence[Batch]) -> str:
        now = time.perf_counter()
        seconds, self._seen = now - self._seen, now
        num_tokens = sum(batch.num_tokens for batch in batches)
        squares = sum(stories * length**2 for batch in batches for _, stories, length in batch.groups)
        flops = (
            6 * num_weights(self.net) * num_tokens + 6 * self.net.config.num_hidden_layers * self.net.config.hidden_size * squares
        )
        self._rate = 0.9 * self._rate + 0.1 * num_tokens / seconds if self._rate else num_tokens / seconds
        used = flops / num_tokens * self._rate / measured_flops(self.dtype, self.net.device)
        return f"loss {loss:.3f}, {self._rate:,.0f} tokens/s, {used:.0%} MFU"


def num_weights(net: Any) -> int:
    """The parameters that a token is multiplied by: all but the tables that are looked up."""
    tables = {id(module.weight): module.weight.numel() for module in net.modules() if isinstance(module, torch.nn.Embedding)}
    tables.pop(id(net.get_output_embeddings().weight), None)  # tied: looked up and multiplied
    return sum(parameter.numel() for parameter in net.parameters()) - sum(tables.values())


@cache
def measured_flops(dtype: torch.dtype, where: torch.device) -> float:
    """FLOP/s of a product of two 2048 x 2048 matrices here, with this many threads: the best of three."""
    a = torch.ones(2048, 2048, dtype=dtype, device=where)
    best = math.inf
    for _ in range(4):
        started = time.perf_counter()
        (a @ a)[0, 0].item()
        best = min(best, time.perf_counter() - started)
    return 2 * 2048**3 / best

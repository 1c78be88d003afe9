"""The training loop of language models: AdamW over packed stories, resumable inside an epoch to the last bit."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from refeed.core import progress
from refeed.core.checkpoints import Checkpoints
from refeed.core.errors import Stopped
from refeed.core.rows import Ragged
from refeed.core.seeds import Seed
from refeed.families.language import state
from refeed.families.language.distributed import Alone, Ranks
from refeed.families.language.layout import Batch, TrainingText
from refeed.families.language.model import LanguageModel

if TYPE_CHECKING:
    from refeed.families.language.learner import Trained

log = logging.getLogger("refeed")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def device() -> torch.device:
    """A CUDA device where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """One fit: `model`'s network is trained for `num_steps` steps over `text`, by what `learner` says.

    `held_out`: the stories on which the loss is noted after each of `learner.curve` equal shares of the steps.
    """

    model: LanguageModel
    text: TrainingText
    learner: Trained
    num_steps: int
    seed: Seed
    held_out: Ragged


ALONE = Alone()


def train(training: Training, ranks: Ranks = ALONE) -> tuple[list[float], dict[str, Tensor]]:
    """Train the network in place; returns its learning curve, and (in the first of several processes) its weights."""
    net, learner, num_steps = training.model.net, training.learner, training.num_steps
    where = device()
    dtype = _checked(learner.precision, where)
    ranks.place(net, where)
    net.train()
    optimizer = _adamw(net, learner)
    checkpoints, gauge = Checkpoints(seals=ranks.rank == 0), _Gauge(net, dtype, ranks.size)
    path, first, curve = checkpoints.newest(), 0, list[float]()
    if path is not None:
        first, curve = state.load(net, optimizer, path, points=learner.curve)
    watched = {round(num_steps * point / learner.curve) for point in range(1, learner.curve + 1)}
    options = {"batch_tokens": learner.batch_tokens, "batch_stories": learner.batch_stories, "seed": training.seed}
    for step, pieces in enumerate(training.text.steps(num_steps, **options, first=first), start=first):  # type: ignore[arg-type]
        rate = learner.learning_rate * schedule(step, num_steps, warm_up=learner.warm_up, shape=learner.schedule)
        for group in optimizer.param_groups:
            group["lr"] = rate
        num_tokens = training.text.num_tokens_of(pieces)
        batches = ranks.batches(training.text, pieces, max_cells=learner.micro_tokens)
        loss = gradients(net, batches, dtype=dtype, num_tokens=num_tokens, ranks=ranks)
        value, due = ranks.total(loss.item(), checkpoints.due and ranks.rank == 0)
        if not math.isfinite(value):
            raise Stopped("diverged", f"the training loss became {value} at step {step + 1} of {num_steps}")
        torch.nn.utils.clip_grad_norm_(net.parameters(), learner.clip)
        optimizer.step()
        optimizer.zero_grad()
        progress.tick(step + 1, num_steps, "steps", gauge.read(value, num_tokens, batches) if progress.heard() else "")
        if step + 1 in watched:
            net.eval()
            curve.append(ranks.held_out_loss(training.model, training.held_out))
            net.train()
        if due and step + 1 < num_steps:
            checkpoints.keep(step + 1, partial(state.save, net, optimizer, done=step + 1, curve=curve, points=learner.curve))
    net.eval()
    weights = ranks.weights(net)
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise Stopped("non-finite", "the fitted weights hold NaN or infinite values")
    return curve, weights


def gradients(
    net: Any, batches: Sequence[Batch], *, dtype: torch.dtype, num_tokens: int | None = None, ranks: Ranks = ALONE
) -> Tensor:
    """Add the gradient of the mean nats a token over all `batches` to the parameters'; returns that mean.

    Where other processes have batches of the same step, `num_tokens` counts the tokens of all; this one's part is returned.
    """
    num_tokens = num_tokens or sum(batch.num_tokens for batch in batches)
    total = torch.zeros((), device=net.device)
    for number, batch in enumerate(batches, start=1):
        inputs, targets, weights = (
            torch.from_numpy(array).to(net.device, non_blocking=True) for array in (batch.inputs, batch.targets, batch.weights)
        )
        last = number == len(batches)
        total += ranks.learn(net, inputs, targets, weights / num_tokens, batch.groups, dtype=dtype, last=last)
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


@dataclass
class _Gauge:
    """Loss, tokens a second, and model-FLOP utilisation: what the model's products took over what this machine multiplies at."""

    net: Any
    dtype: torch.dtype
    num_devices: int
    _seen: float = field(default_factory=time.perf_counter)
    _rate: float = 0.0

    def read(self, loss: float, num_tokens: int, batches: Sequence[Batch]) -> str:
        """Of a step of `num_tokens`, of which `batches` are this process's share."""
        now = time.perf_counter()
        seconds, self._seen = now - self._seen, now
        own = sum(batch.num_tokens for batch in batches)
        squares = sum(stories * length**2 for batch in batches for _, stories, length in batch.groups)
        flops = 6 * num_weights(self.net) * own + 6 * self.net.config.num_hidden_layers * self.net.config.hidden_size * squares
        self._rate = 0.9 * self._rate + 0.1 * num_tokens / seconds if self._rate else num_tokens / seconds
        used = flops / max(own, 1) * self._rate / self.num_devices / measured_flops(self.dtype, self.net.device)
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

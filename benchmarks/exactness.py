"""How far logits are from transformers' in float32: the engines', and transformers' own in bfloat16 as the yardstick.

    python benchmarks/exactness.py                                # the table of docs/families/language.md, some minutes
    python benchmarks/exactness.py --shape tiny --steps 60        # a look

The model is trained as in benchmarks/sampling.py. Every engine is given the same sampled stories and asked for the logits before
each token. Root mean square over positions and tokens of the vocabulary; KL(transformers float32 || other) in nats a token.
"""

from __future__ import annotations

import argparse
import copy

import numpy as np
import torch
from sampling import SHAPES, trained

from refeed.core.rows import Ragged
from refeed.core.seeds import Seed
from refeed.families.language.model import LanguageModel
from refeed.families.language.sampler import Ancestral
from refeed.families.language.sampling import native, wave
from refeed.families.language.sampling.draws import Draws, Job
from refeed.families.language.sampling.network import read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="gpt2-9m-4k")
    parser.add_argument("--steps", type=int, default=220, help="training steps of 1024 tokens")
    parser.add_argument("--stories", type=int, default=16)
    parser.add_argument("--positions", type=int, default=96)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model = trained(asked.shape, asked.steps)
    tokens = given(model, asked.stories, asked.positions)
    truth = theirs(model, tokens, torch.float32)
    print(f"{len(tokens)} stories of {asked.positions} positions; the logits' standard deviation is {truth.std():.2g}\n")
    print("| | root mean square | KL, nats a token |\n|---|---|---|")
    row("transformers bfloat16", truth, theirs(model, tokens, torch.bfloat16))
    for dtype in ("bfloat16", "float32"):
        if native.build().library is not None:
            row(f"native {dtype}", truth, by_native(model, tokens, dtype))
        row(f"PyTorch {dtype}", truth, torch.from_numpy(wave.logits_of(model.net, job(model, tokens, dtype), tokens)))


def given(model: LanguageModel, count: int, positions: int) -> np.ndarray:
    """The first tokens of sampled stories that have so many: (count, positions)."""
    drawn: Ragged = Ancestral().sample(model, 4 * count, world=None, seed=Seed(3))["tokens"]  # type: ignore[arg-type, assignment]
    return np.stack([story[:positions] for story in drawn if len(story) > positions][:count]).astype(np.int32)


def theirs(model: LanguageModel, tokens: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """The logits before each token, by transformers."""
    before = np.concatenate([np.full((len(tokens), 1), model.tokenizer.end), tokens[:, :-1]], axis=1).astype(np.int64)
    with torch.inference_mode():
        logits: torch.Tensor = copy.deepcopy(model.net).to(dtype)(input_ids=torch.from_numpy(before)).logits
    return logits.float()


def job(model: LanguageModel, tokens: np.ndarray, dtype: str) -> Job:
    count, positions = tokens.shape
    end = model.tokenizer.end
    return Job(draws=Draws(), key=0, stories=count, limit=positions, end=end, slots=count, dtype=dtype, prompts=tokens)


def by_native(model: LanguageModel, tokens: np.ndarray, dtype: str) -> torch.Tensor:
    found = np.zeros((*tokens.shape, model.tokenizer.size), np.float32)
    session = native.Session(native.build().library, read(model.net), job(model, tokens, dtype), threads=1, logits=found)
    while session.advance(100):
        pass
    session.close()
    return torch.from_numpy(found)


def row(name: str, truth: torch.Tensor, other: torch.Tensor) -> None:
    p, q = truth.double().log_softmax(-1), other.double().log_softmax(-1)
    distance, kl = (truth - other).square().mean().sqrt(), (p.exp() * (p - q)).sum(-1).mean()
    print(f"| {name} | {distance:.1e} | {kl:.1e} |", flush=True)


if __name__ == "__main__":
    main()

"""A fitted language model: the network and its tokenizer, and the exact log-probability of stories under it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refeed.core.rows import Ragged
from refeed.families.language import nets, vocabulary
from refeed.families.language.layout import batches_by_length
from refeed.families.language.vocabulary import Tokenizer

CURVE = "learning_curve.json"


@dataclass(frozen=True, eq=False, kw_only=True)
class LanguageModel:
    """p(story) = product over its tokens, the end token included, of p(token | end token, tokens before)."""

    net: Any  # a transformers causal language model
    tokenizer: Tokenizer
    curve: tuple[float, ...] = ()  # its loss on held-out stories while it was trained, nats a token, evenly over the steps

    @property
    def context(self) -> int:
        """How many tokens the network sees at most: as many as it was trained on."""
        return nets.context_of(self.net)

    def log_prob(self, stories: Ragged, *, batch_tokens: int = 16384) -> np.ndarray:
        """log p of each story in nats, summed over its tokens: (stories,), float64 sums of float32 terms.

        Position 0 predicts the first token from the end token. A story longer than the context is read in windows of it that
        overlap by half: each token is predicted once, from at least half a context where it has that much before it.
        """
        import torch

        story, first, length, fresh = windows(stories.lengths, self.context)
        result = np.zeros(len(stories))
        for batch in batches_by_length(length, max_tokens=batch_tokens):
            width = int(length[batch].max())
            column = np.arange(width)
            inside = column < length[batch, None]
            cell = np.where(inside, (stories.offsets[story[batch]] + first[batch])[:, None] + column, 0)
            inputs = np.where(inside & (cell > stories.offsets[story[batch], None]), stories.values[cell - 1], self.tokenizer.end)
            inputs = inputs.astype(np.int64)
            targets = np.where(inside, stories.values[cell].astype(np.int64), 0)
            with torch.inference_mode():
                where = self.net.device
                logits = self.net(input_ids=torch.from_numpy(inputs).to(where), use_cache=False).logits
                terms = -torch.nn.functional.cross_entropy(
                    logits.flatten(0, 1).float(), torch.from_numpy(targets).to(where).flatten(), reduction="none"
                ).cpu()
            scored = inside & (column >= (length - fresh)[batch, None])
            terms_BT = terms.numpy().reshape(len(batch), width).astype(np.float64)
            np.add.at(result, story[batch], np.where(scored, terms_BT, 0.0).sum(axis=1))
        return result

    def nats_a_token(self, stories: Ragged) -> float:
        """The loss on `stories`: -log p, summed over stories, over their tokens."""
        return float(-self.log_prob(stories).sum() / max(1, len(stories.values)))

    def save(self, folder: Path) -> None:
        """What `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained` open."""
        nets.save(self.net, folder)
        vocabulary.save(self.tokenizer, folder)
        if self.curve:
            (folder / CURVE).write_text(json.dumps(self.curve))

    @classmethod
    def load(cls, folder: Path) -> LanguageModel:
        curve = tuple(json.loads((folder / CURVE).read_text())) if (folder / CURVE).exists() else ()
        return cls(net=nets.load(folder), tokenizer=vocabulary.load(folder), curve=curve)


def windows(lengths: np.ndarray, context: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Windows of at most `context` tokens that cover every story: which story, first token, length, how many are scored in it."""
    stride = max(1, context // 2)
    rows = []
    for story, length in enumerate(lengths.tolist()):
        done = min(length, context)
        rows.append((story, 0, done, done))
        while done < length:
            fresh = min(stride, length - done)
            done += fresh
            rows.append((story, done - context, context, fresh))
    columns = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    return columns[0], columns[1], columns[2], columns[3]

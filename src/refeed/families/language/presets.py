"""The four models of the paper, by name: shapes that give its parameter counts exactly at 8000 tokens, and its protocol.

Sourced: the counts, one epoch over whatever the training set is, 66,235 steps for 2,119,719 stories, hence 32 stories a step. Not
published, and chosen here: heads of 64, context 512, AdamW, learning rate and its linear decay.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

from refeed.families.language.learner import GPT2, Llama, Transformer

PROTOCOL = {
    "context": 512,
    "epochs": 1,
    "batch_stories": 32,
    "schedule": "linear",
    "warm_up": 0.05,
    "precision": "bfloat16",
    "initial_deviation": 0.02,
}


def preset(learner: type[Transformer], about: str, **values: Any) -> Callable[..., Transformer]:
    """`learner` with other defaults; every option may still be given."""

    def make(**options: Any) -> Transformer:
        return learner(**(values | options))

    signature = inspect.signature(learner)
    parameters = [p.replace(default=values.get(name, p.default)) for name, p in signature.parameters.items()]
    make.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    make.__annotations__ = typing.get_type_hints(learner.__init__)
    make.__doc__ = about
    return make


gpt2_9m = preset(
    GPT2,
    "The paper's GPT-2: 8,890,880 parameters at 8000 tokens.",
    **PROTOCOL | {"width": 256, "layers": 8, "heads": 4, "feed_forward": 1024, "positions": 2048, "learning_rate": 1e-3},
)
llama_12m = preset(
    Llama,
    "The paper's small Llama-2: 12,488,960 parameters at 8000 tokens.",
    **PROTOCOL | {"width": 256, "layers": 8, "heads": 4, "feed_forward": 1024, "learning_rate": 1e-3},
)
llama_42m = preset(
    Llama,
    "The paper's middle Llama-2: 41,755,136 parameters at 8000 tokens.",
    **PROTOCOL | {"width": 512, "layers": 8, "heads": 8, "feed_forward": 2048, "learning_rate": 6e-4},
)
llama_126m = preset(
    Llama,
    "The paper's large Llama-2: 125,553,408 parameters at 8000 tokens.",
    **PROTOCOL | {"width": 768, "layers": 12, "heads": 12, "feed_forward": 3072, "learning_rate": 4e-4},
)

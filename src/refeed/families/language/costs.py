"""What a step of language costs: FLOPs, tokens and bytes, from shapes alone.

With N the weights that a token is multiplied by (all but tables that are looked up), width d, and stories of L tokens, of which a
token sees on average half: a token takes 2 N + 2 layers d L FLOPs forward (the second term is attention: two products of 2 d FLOPs
with each of L/2 tokens), and three times that to learn from, forward and backward (Kaplan et al., 2020, arXiv:2001.08361, 2.1).
Where stories differ in length, L is their mean, and attention is understated. Tokens take two bytes; weights four.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from refeed.core.protocols import Cost
from refeed.core.steps import Alter, Draw, Fit, Measure, Sample, Step
from refeed.families.language import nets

TOKEN_BYTES, WEIGHT_BYTES = 2, 4


def costs(step: Step) -> Cost | None:
    """The cost of `step`; None where the source does not say how long its stories are before they are read."""
    model = step if isinstance(step, Fit) else getattr(step, "model", None)
    source: Any = step.source if isinstance(step, Draw) else model.draw.source if model is not None else None
    if not hasattr(source, "row_tokens"):
        return None
    length = source.row_tokens
    if isinstance(step, Draw):
        tokens = round((source.rows + source.test_rows) * length)
        return Cost(tokens=tokens, bytes=tokens * TOKEN_BYTES)
    assert isinstance(model, Fit)
    learner: Any = model.learner
    if not hasattr(learner, "config"):  # a shape that only its files know
        return None
    forward, parameters = _network(learner, source.vocabulary, length)
    if isinstance(step, Fit):
        tokens = _fit_tokens(step, length)
        return Cost(flops=3 * forward * tokens, tokens=tokens, bytes=parameters * WEIGHT_BYTES, parameters=parameters)
    if isinstance(step, Sample):
        tokens = round(step.num_rows * length)
        return Cost(flops=forward * tokens, tokens=tokens, bytes=tokens * TOKEN_BYTES, parameters=parameters)
    if isinstance(step, Alter):
        tokens = round(step.num_rows * length)
        return Cost(tokens=tokens, bytes=tokens * TOKEN_BYTES)
    if isinstance(step, Measure) and "log_prob" in step.metric.needs:
        tokens = round(source.test_rows * length)
        return Cost(flops=forward * tokens, tokens=tokens, parameters=parameters)
    return Cost()


def _fit_tokens(step: Fit, length: float) -> int:
    learner: Any = step.learner
    if learner.steps is not None:
        stories = getattr(learner, "batch_stories", None)
        return round(learner.steps * (stories * length if stories else learner.batch_tokens))
    visits = step.train.num_rows if step.visits is None else step.visits
    return round(learner.epochs * visits * length)


@lru_cache(maxsize=64)
def _network(learner: Any, vocabulary: int, length: float) -> tuple[float, int]:
    """FLOPs a token, forward, and parameters; from a network without storage."""
    from refeed.families.language.training import num_weights

    config = learner.config(size=vocabulary, end=0)
    net = nets.outline(config)
    attention = 2 * config.num_hidden_layers * config.hidden_size * min(length, learner.context)
    return 2 * num_weights(net) + attention, sum(parameter.numel() for parameter in net.parameters())

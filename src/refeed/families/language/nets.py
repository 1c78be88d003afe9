"""GPT-2 and Llama from transformers' configurations, from scratch; saved and read as transformers does.

Unusual: no dropout (a fit is deterministic in its seed), GELU in its fused tanh form, float32. Token `end` is both the
beginning and the end of a text. transformers is imported inside the functions: that alone costs seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def gpt2(
    *,
    vocabulary: int,
    end: int,
    context: int,
    width: int,
    layers: int,
    heads: int,
    feed_forward: int,
    deviation: float,
) -> Any:
    """Configuration of a GPT-2: learned positions, tied embeddings (Radford et al., 2019)."""
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=vocabulary,
        n_positions=context,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        n_inner=feed_forward,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=deviation,
        bos_token_id=end,
        eos_token_id=end,
    )


def llama(
    *,
    vocabulary: int,
    end: int,
    context: int,
    width: int,
    layers: int,
    heads: int,
    feed_forward: int,
    deviation: float,
    tied: bool,
) -> Any:
    """Configuration of a Llama: rotary positions, RMS norm, gated feed-forward (Touvron et al., arXiv:2307.09288)."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocabulary,
        max_position_embeddings=context,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=feed_forward,
        tie_word_embeddings=tied,
        initializer_range=deviation,
        bos_token_id=end,
        eos_token_id=end,
    )


def limit_context(net: Any, context: int) -> None:
    """Note in the network's configuration, which is saved with it, that it is trained on no more than `context` tokens."""
    net.config.trained_context = min(context, getattr(net.config, "max_position_embeddings", None) or context)


def context_of(net: Any) -> int:
    """The most tokens that a network has seen together."""
    return int(getattr(net.config, "trained_context", None) or net.config.max_position_embeddings)


def read_config(folder: Path, *, vocabulary: int, end: int) -> Any:
    """The configuration in a folder, for another vocabulary and without dropout."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    config.update({"vocab_size": vocabulary, "bos_token_id": end, "eos_token_id": end, "pad_token_id": None})
    return without_dropout(config)


def without_dropout(config: Any) -> Any:
    """The same configuration with every dropout rate set to 0: a fit is deterministic in its seed."""
    for name, value in config.to_dict().items():
        if isinstance(value, float) and (name.endswith("_pdrop") or "dropout" in name):
            setattr(config, name, 0.0)
    return config


def build(config: Any, *, seed: int) -> Any:
    """A network with random weights that depend on `seed` alone; the global generator is left as it was."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        net = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    return net.float().eval()


@contextmanager
def _without_bars() -> Iterator[None]:
    """transformers' progress bars switched off: refeed has its own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def save(net: Any, folder: Path) -> None:
    """config.json and model.safetensors, which `AutoModelForCausalLM.from_pretrained` opens."""
    with _without_bars():
        net.save_pretrained(folder)


def load(folder: Path) -> Any:
    """The network that `save` wrote, bit for bit."""
    from safetensors.torch import load_file
    from transformers import AutoConfig

    net = build(AutoConfig.from_pretrained(folder), seed=0)
    missing, unexpected = net.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    tied = set(net._tied_weights_keys or ()) if net.config.tie_word_embeddings else set()
    if unexpected or set(missing) - tied:
        raise ValueError(f"{folder} holds other weights than its config says: {[*unexpected, *missing]}")
    net.tie_weights()
    return net


def outline(config: Any) -> Any:
    """A network without numbers: names and shapes only."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def given_config(folder: Path) -> Any:
    """The configuration of a folder that anybody wrote, without dropout."""
    from transformers import AutoConfig

    return without_dropout(AutoConfig.from_pretrained(folder))


def load_given(folder: Path) -> Any:
    """The network of a folder that anybody wrote, in float32 and without dropout."""
    import torch
    from transformers import AutoModelForCausalLM

    with _without_bars():
        net = AutoModelForCausalLM.from_pretrained(
            folder,
            config=given_config(folder),
            dtype=torch.float32,
            use_safetensors=True,
            attn_implementation="sdpa",
        )
    return net.eval()

"""The weights of a GPT-2 or Llama, under one set of names for both engines, read from a transformers model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """Matrices have shape (outputs, inputs); `qkv` stacks queries, keys, values; in a Llama `up` stacks gate and up."""

    norm1: Any
    norm1_bias: Any
    qkv: Any
    qkv_bias: Any
    out: Any
    out_bias: Any
    norm2: Any
    norm2_bias: Any
    up: Any
    up_bias: Any
    down: Any
    down_bias: Any
    scale: float  # of the scores of attention


@dataclass(frozen=True, eq=False, kw_only=True)
class Network:
    """What decoding needs to know. Tensors are on the model's device, float32 where it is; None where the network has none."""

    llama: bool  # rotary positions, RMS norm, gated SiLU; else learned positions, layer norm, GELU in its tanh form
    context: int
    heads: int
    kv_heads: int
    head_size: int
    epsilon: float
    tokens: Any  # (vocabulary, width)
    positions: Any  # (context, width), or None
    rotary: Any  # (context, head size): cosines of half the dimensions, then sines; or None
    norm: Any
    norm_bias: Any
    head: Any  # (vocabulary, width)
    layers: tuple[Layer, ...]

    @property
    def vocabulary(self) -> int:
        return int(self.head.shape[0])

    @property
    def width(self) -> int:
        return int(self.tokens.shape[1])

    @property
    def feed_forward(self) -> int:
        return int(self.layers[0].down.shape[1])

    def cache_bytes(self, limit: int, bytes_a_number: int) -> int:
        """Keys and values of one story of `limit` tokens."""
        return 2 * len(self.layers) * self.kv_heads * self.head_size * limit * bytes_a_number


def read(net: Any) -> Network | None:
    """The network of a transformers model, or None if it is not a GPT-2 or Llama as described above."""
    config = net.config
    if config.model_type == "gpt2" and config.activation_function in ("gelu_new", "gelu_pytorch_tanh"):
        return None if config.add_cross_attention else _gpt2(net)
    if (
        config.model_type == "llama"
        and config.hidden_act == "silu"
        and net.model.rotary_emb.rope_type in ("default", "linear", "llama3")
    ):
        return _llama(net)
    return None


def _gpt2(net: Any) -> Network:
    config, body = net.config, net.transformer

    def layer(block: Any) -> Layer:
        return Layer(
            norm1=block.ln_1.weight,
            norm1_bias=block.ln_1.bias,
            qkv=block.attn.c_attn.weight.T,  # transformers keeps these as (inputs, outputs)
            qkv_bias=block.attn.c_attn.bias,
            out=block.attn.c_proj.weight.T,
            out_bias=block.attn.c_proj.bias,
            norm2=block.ln_2.weight,
            norm2_bias=block.ln_2.bias,
            up=block.mlp.c_fc.weight.T,
            up_bias=block.mlp.c_fc.bias,
            down=block.mlp.c_proj.weight.T,
            down_bias=block.mlp.c_proj.bias,
            scale=block.attn.scaling,
        )

    return Network(
        llama=False,
        context=config.n_positions,
        heads=config.n_head,
        kv_heads=config.n_head,
        head_size=config.n_embd // config.n_head,
        epsilon=config.layer_norm_epsilon,
        tokens=body.wte.weight,
        positions=body.wpe.weight,
        rotary=None,
        norm=body.ln_f.weight,
        norm_bias=body.ln_f.bias,
        head=net.lm_head.weight,
        layers=tuple(layer(block) for block in body.h),
    )


def _llama(net: Any) -> Network:
    import torch

    config, body = net.config, net.model

    def stacked(*parts: Any) -> Any:
        return torch.cat(parts) if parts[0] is not None else None

    def layer(block: Any) -> Layer:
        attention, mlp = block.self_attn, block.mlp
        heads = (attention.q_proj, attention.k_proj, attention.v_proj)
        return Layer(
            norm1=block.input_layernorm.weight,
            norm1_bias=None,
            qkv=stacked(*(part.weight for part in heads)),
            qkv_bias=stacked(*(part.bias for part in heads)),
            out=attention.o_proj.weight,
            out_bias=attention.o_proj.bias,
            norm2=block.post_attention_layernorm.weight,
            norm2_bias=None,
            up=stacked(mlp.gate_proj.weight, mlp.up_proj.weight),
            up_bias=stacked(mlp.gate_proj.bias, mlp.up_proj.bias),
            down=mlp.down_proj.weight,
            down_bias=mlp.down_proj.bias,
            scale=attention.scaling,
        )

    first = body.layers[0].self_attn
    positions = torch.arange(config.max_position_embeddings, device=body.embed_tokens.weight.device)
    cosine, sine = body.rotary_emb(torch.zeros(1, device=positions.device), positions[None])
    half = first.head_dim // 2
    return Network(
        llama=True,
        context=config.max_position_embeddings,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_size=first.head_dim,
        epsilon=config.rms_norm_eps,
        tokens=body.embed_tokens.weight,
        positions=None,
        rotary=torch.cat([cosine[0, :, :half], sine[0, :, :half]], dim=1),
        norm=body.norm.weight,
        norm_bias=None,
        head=net.lm_head.weight,
        layers=tuple(layer(block) for block in body.layers),
    )

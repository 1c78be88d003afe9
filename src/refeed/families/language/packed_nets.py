"""GPT-2 and Llama, for training on stories laid end to end: the weights of transformers' networks, computed without padding.

Unusual: stories are put in groups of nearly equal length, group after group, story after story, in one matrix (N, width), so that
attention is a few batched products without a mask between stories; attention keeps its probabilities for the way back, which on a
processor takes a quarter of the time of the fused kernel; the loss and its gradient are computed together, some hundred rows
of logits at a time, so that the logits never exist as a whole. Residuals, norms, softmax of the logits and all sums are
float32, products are in `dtype`. Other architectures are computed by their own class, group by group.

N cells; B stories of T cells in a group; H heads of D; V tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Group = tuple[int, int, int]  # first cell, stories, cells of each
LOGIT_ROWS = 1024  # rows of logits whose gradient is kept at a time
SOFTMAX_ROWS = 128  # rows of them in float32 at a time
LONGEST = 640  # beyond, the attention probabilities are not kept


def loss(net: Any, ids: Tensor, targets: Tensor, weights: Tensor, groups: Sequence[Group], *, dtype: torch.dtype) -> Tensor:
    """The weighted sum of nats over all cells: -sum of weight x log p(target). `ids`, `targets`, `weights`: (N,)."""
    if not is_known(net):
        return _by_its_own_class(net, ids, targets, weights, groups, dtype)
    return _run(_loss, net, ids, targets, weights, groups, dtype)


def _loss(net: Any, ids: Tensor, targets: Tensor, weights: Tensor, groups: Sequence[Group], dtype: torch.dtype) -> Tensor:
    compute = {"gpt2": _gpt2, "llama": _llama}[net.config.model_type]
    positions = torch.cat([torch.arange(length, device=ids.device).repeat(stories) for _, stories, length in groups])
    hidden_NE = compute(net, ids, positions, groups, dtype)
    return _NatsOfLogits.apply(hidden_NE.to(dtype), net.lm_head.weight.to(dtype), targets, weights)


def is_known(net: Any) -> bool:
    """Whether a network is one of the two that are computed here, in their plain form."""
    config = net.config
    if config.model_type == "gpt2":
        plain = config.activation_function in ("gelu_pytorch_tanh", "gelu_new") and config.scale_attn_weights
        return plain and not (
            config.resid_pdrop or config.embd_pdrop or config.attn_pdrop or config.scale_attn_by_inverse_layer_idx
        )
    if config.model_type == "llama":
        plain = config.hidden_act == "silu" and config.num_key_value_heads == config.num_attention_heads
        rope = getattr(net.model.rotary_emb, "rope_type", "default") == "default"
        return plain and rope and not (config.attention_bias or config.mlp_bias or config.attention_dropout)
    return False


def _run(compute: Callable[..., Tensor], part: Any, *arguments: Any) -> Tensor:
    """compute(part, *arguments), `part` being the network or one of its blocks.

    Where weights are sharded over processes (`distributed.py`) a part has a method `packed`, which gathers its own meanwhile.
    """
    gathered = getattr(part, "packed", None)
    return compute(part, *arguments) if gathered is None else gathered(compute, *arguments)


def _gpt2(net: Any, ids: Tensor, positions: Tensor, groups: Sequence[Group], dtype: torch.dtype) -> Tensor:
    body = net.transformer
    x_NE = functional.embedding(ids, body.wte.weight) + functional.embedding(positions, body.wpe.weight)
    for block in body.h:
        x_NE = _run(_gpt2_block, block, x_NE, groups, net.config.n_head, dtype)
    return body.ln_f(x_NE)


def _gpt2_block(block: Any, x_NE: Tensor, groups: Sequence[Group], num_heads: int, dtype: torch.dtype) -> Tensor:
    def linear(x: Tensor, layer: Any) -> Tensor:
        return torch.addmm(layer.bias.to(dtype), x, layer.weight.to(dtype))

    qkv = linear(block.ln_1(x_NE).to(dtype), block.attn.c_attn)
    x_NE = x_NE + linear(_attention(qkv, groups, num_heads, None, None), block.attn.c_proj)
    hidden = functional.gelu(linear(block.ln_2(x_NE).to(dtype), block.mlp.c_fc), approximate="tanh")
    return x_NE + linear(hidden, block.mlp.c_proj)


def _llama(net: Any, ids: Tensor, positions: Tensor, groups: Sequence[Group], dtype: torch.dtype) -> Tensor:
    body = net.model
    angles_TD = torch.outer(torch.arange(int(positions.max()) + 1, device=ids.device), body.rotary_emb.inv_freq.float())
    cos, sin = angles_TD.cos().to(dtype), angles_TD.sin().to(dtype)
    x_NE = functional.embedding(ids, body.embed_tokens.weight)
    for block in body.layers:
        x_NE = _run(_llama_block, block, x_NE, groups, net.config.num_attention_heads, cos, sin, dtype)
    return _rms(x_NE, body.norm)


def _llama_block(
    block: Any, x_NE: Tensor, groups: Sequence[Group], num_heads: int, cos: Tensor, sin: Tensor, dtype: torch.dtype
) -> Tensor:
    def linear(x: Tensor, layer: Any) -> Tensor:
        return functional.linear(x, layer.weight.to(dtype))

    h = _rms(x_NE, block.input_layernorm).to(dtype)
    attention = block.self_attn
    qkv = torch.cat([linear(h, attention.q_proj), linear(h, attention.k_proj), linear(h, attention.v_proj)], dim=1)
    x_NE = x_NE + linear(_attention(qkv, groups, num_heads, cos, sin), attention.o_proj)
    h = _rms(x_NE, block.post_attention_layernorm).to(dtype)
    return x_NE + linear(functional.silu(linear(h, block.mlp.gate_proj)) * linear(h, block.mlp.up_proj), block.mlp.down_proj)


def _rms(x: Tensor, norm: Any) -> Tensor:
    return functional.rms_norm(x, (x.shape[-1],), norm.weight, norm.variance_epsilon)


def _attention(qkv: Tensor, groups: Sequence[Group], num_heads: int, cos: Tensor | None, sin: Tensor | None) -> Tensor:
    """Causal attention inside each story, from (N, 3HD) to (N, HD); with `cos` and `sin` (T, D/2), after rotating q and k."""
    if qkv.device.type == "cpu" and max(length for _, _, length in groups) <= LONGEST:
        return _Attention.apply(qkv, groups, num_heads, cos, sin)
    outs = []
    for first, stories, length in groups:
        parts = qkv[first : first + stories * length].view(stories, length, 3, num_heads, -1).permute(2, 0, 3, 1, 4)
        qk = parts[:2] if cos is None or sin is None else _rotated(parts[:2], cos[:length], sin[:length])
        out_BHTD = functional.scaled_dot_product_attention(qk[0], qk[1], parts[2], is_causal=True)
        outs.append(out_BHTD.transpose(1, 2).reshape(stories * length, -1))
    return torch.cat(outs)


class _Attention(torch.autograd.Function):
    """`_attention` by batched products, the probabilities kept for the way back."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, groups: Sequence[Group], num_heads: int, cos: Tensor | None, sin: Tensor | None) -> Tensor:
        size = qkv.shape[1] // (3 * num_heads)
        ctx.scale, ctx.num_heads, ctx.groups, ctx.rotation = 1 / math.sqrt(size), num_heads, groups, (cos, sin)
        out_NE, kept = qkv.new_empty(qkv.shape[0], num_heads * size), []
        for first, stories, length in groups:
            last = first + stories * length
            parts = qkv[first:last].view(stories, length, 3, num_heads, size).permute(2, 0, 3, 1, 4)
            parts = parts.reshape(3, stories * num_heads, length, size)
            qk, v = parts[:2], parts[2]
            if cos is not None and sin is not None:
                qk = _rotated(qk, cos[:length], sin[:length])
            q, k = qk
            mask = torch.full((length, length), -math.inf, dtype=qkv.dtype, device=qkv.device).triu_(1)
            p = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=ctx.scale).softmax(-1)
            out_NE[first:last].view(stories, length, num_heads, size).copy_(
                torch.bmm(p, v).view(stories, num_heads, length, size).transpose(1, 2)
            )
            kept += [qk, v, p]
        ctx.save_for_backward(*kept)
        return out_NE

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad_NE,), (cos, sin) = grads, ctx.rotation
        kept = ctx.saved_tensors
        grad_qkv = grad_NE.new_empty(grad_NE.shape[0], 3 * grad_NE.shape[1])
        size = grad_NE.shape[1] // ctx.num_heads
        for number, (first, stories, length) in enumerate(ctx.groups):
            last, ((q, k), v, p) = first + stories * length, kept[3 * number : 3 * number + 3]
            g = grad_NE[first:last].view(stories, length, ctx.num_heads, size).transpose(1, 2).reshape(-1, length, size)
            inner = torch._softmax_backward_data(torch.bmm(g, v.transpose(1, 2)), p, -1, p.dtype)
            grad_qk = torch.stack([torch.bmm(inner, k), torch.bmm(inner.transpose(1, 2), q)]).mul_(ctx.scale)
            if cos is not None and sin is not None:
                grad_qk = _rotated(grad_qk, cos[:length], -sin[:length])
            out = grad_qkv[first:last].view(stories, length, 3, ctx.num_heads, size).permute(2, 0, 3, 1, 4)
            out[:2].copy_(grad_qk.view(2, stories, ctx.num_heads, length, size))
            out[2].copy_(torch.bmm(p.transpose(1, 2), g).view(stories, ctx.num_heads, length, size))
        return grad_qkv, None, None, None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each pair (i, i + D/2) of the last axis turned by its angle, as transformers' Llama pairs them."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([torch.addcmul(a * cos, b, sin, value=-1), torch.addcmul(b * cos, a, sin)], dim=-1)


class _NatsOfLogits(torch.autograd.Function):
    """sum of weight x (log sum exp(logits) - logit of the target), logits = x W'; its gradient is computed on the way."""

    @staticmethod
    def forward(ctx: Any, x_NE: Tensor, w_VE: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=x_NE.device)
        grad_x, grad_w = torch.empty_like(x_NE), torch.zeros_like(w_VE, dtype=torch.float32)
        buffer = torch.empty(2, SOFTMAX_ROWS, w_VE.shape[0], device=x_NE.device)
        for first in range(0, len(x_NE), LOGIT_ROWS):
            x, target, weight = (part[first : first + LOGIT_ROWS] for part in (x_NE, targets, weights))
            logits = x @ w_VE.t()
            for row in range(0, len(x), SOFTMAX_ROWS):
                part, place = logits[row : row + SOFTMAX_ROWS], target[row : row + SOFTMAX_ROWS, None]
                z, p = buffer[:, : len(part)]
                z.copy_(part)
                torch.softmax(z, -1, out=p)
                log_sum = z.amax(-1) - p.amax(-1).log()
                nats = log_sum - z.gather(1, place)[:, 0]
                total += (nats.double() * weight[row : row + SOFTMAX_ROWS]).sum()
                p.scatter_(1, place, torch.expm1(-nats)[:, None])
                part.copy_(p)
            scale = weight[:, None].to(x.dtype)
            torch.mul(logits @ w_VE, scale, out=grad_x[first : first + LOGIT_ROWS])
            grad_w += logits.t() @ (x * scale)
        ctx.save_for_backward(grad_x, grad_w)
        ctx.dtype = w_VE.dtype
        return total.float()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        grad_x, grad_w = ctx.saved_tensors
        return grad_x.mul_(grads[0]), grad_w.mul_(grads[0]).to(ctx.dtype), None, None


def _by_its_own_class(
    net: Any, ids: Tensor, targets: Tensor, weights: Tensor, groups: Sequence[Group], dtype: torch.dtype
) -> Tensor:
    total = torch.zeros((), device=ids.device)
    for first, stories, length in groups:
        cells = slice(first, first + stories * length)
        with torch.autocast(ids.device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            logits = net(input_ids=ids[cells].view(stories, length), use_cache=False).logits
        nats = functional.cross_entropy(logits.flatten(0, 1).float(), targets[cells], reduction="none")
        total = total + (nats * weights[cells]).sum()
    return total

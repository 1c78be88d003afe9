"""Networks that decode a token at a time, for many rows that share a position: GPT-2 and Llama, and any other by transformers."""

from __future__ import annotations

from typing import Any, Protocol

from refeed.families.language.sampling.draws import Job
from refeed.families.language.sampling.network import Layer, Network


class Decoder(Protocol):
    """One token at a time for a wave of rows, from position 0 on."""

    def start(self) -> None: ...

    def step(self, token_B: Any, position: Any, span: int) -> Any:
        """Logits after `token_B` at `position`, a tensor of one number: (rows, vocabulary), float32.

        The cache is read up to `span`, which is more than the position.
        """
        ...

    def keep(self, index_B: Any, position: int) -> None:
        """Go on at `position` with these rows only."""
        ...


def decoder_of(net: Any, network: Network | None, job: Job, device: str, *, masked: bool) -> Decoder:
    return Plain(network, job, device, masked=masked) if network is not None else Transformers(net, job, device)


class Plain:
    """GPT-2 and Llama in plain PyTorch. Products and the cache have the job's dtype; sums, norms and logits are float32.

    The cache is one block of memory, (layers, 2, slots, heads, tokens, head size). `masked`: whether spans may reach beyond the
    position. Such positions get no weight, but are multiplied: what is there must be finite, hence the zeros.
    """

    def __init__(self, network: Network, job: Job, device: str, *, masked: bool) -> None:
        import torch

        self._net, self._masked = network, masked
        self._dtype = getattr(torch, job.dtype)
        self._layers = [_moved(layer, device, self._dtype) for layer in network.layers]

        def moved(tensor: Any) -> Any:
            return None if tensor is None else tensor.detach().float().to(device)

        self._tokens, self._positions, self._rotary = (moved(part) for part in (network.tokens, network.positions, network.rotary))
        self._norm, self._norm_bias, self._head = (moved(part) for part in (network.norm, network.norm_bias, network.head))
        shape = (len(network.layers), 2, min(job.slots, job.stories), network.kv_heads, job.limit, network.head_size)
        self._cache = torch.zeros(shape, dtype=self._dtype, device=device)

    def start(self) -> None:
        pass

    def step(self, token_B: Any, position: Any, span: int) -> Any:
        x_BD = self._tokens[token_B]
        if self._positions is not None:
            x_BD = x_BD + self._positions[position]
        mask_T = self._mask(position, span) if self._masked else None
        for number, layer in enumerate(self._layers):
            cache = self._cache[number, :, : len(token_B)]
            h_BD = self._normalised(x_BD, layer.norm1, layer.norm1_bias)
            x_BD = x_BD + self._attention(layer, cache, h_BD, position, span, mask_T)
            x_BD = x_BD + self._feed_forward(layer, self._normalised(x_BD, layer.norm2, layer.norm2_bias))
        return self._normalised(x_BD, self._norm, self._norm_bias).float() @ self._head.T

    def keep(self, index_B: Any, position: int) -> None:
        for layer in self._cache:  # a layer at a time, so that little memory is needed beside it
            for half in layer:
                half[: len(index_B), :, :position] = half[index_B, :, :position]

    def _mask(self, position: Any, span: int) -> Any:
        import torch

        beyond_T = torch.arange(span, device=position.device) > position
        return torch.zeros(span, dtype=self._dtype, device=position.device).masked_fill(beyond_T, -torch.inf)

    def _attention(self, layer: Layer, cache: Any, h_BD: Any, position: Any, span: int, mask_T: Any) -> Any:
        from torch.nn.functional import linear, scaled_dot_product_attention

        net, rows = self._net, len(h_BD)
        qkv = linear(h_BD, layer.qkv, layer.qkv_bias).view(rows, -1, net.head_size)
        q_BHE, k_BHE, v_BHE = qkv.split([net.heads, net.kv_heads, net.kv_heads], dim=1)
        if net.llama:
            q_BHE, k_BHE = self._rotated(q_BHE, position), self._rotated(k_BHE, position)
        for half, new in zip(cache, (k_BHE, v_BHE), strict=True):
            half.index_copy_(2, position, new[:, :, None])
        keys, values = cache[:, :, :, :span]
        if mask_T is None:
            shared = net.heads != net.kv_heads
            mixed = scaled_dot_product_attention(q_BHE[:, :, None], keys, values, scale=layer.scale, enable_gqa=shared)
        else:  # no fused kernel takes a mask and enable_gqa: heads that share keys are queries side by side
            grouped = q_BHE.reshape(rows, net.kv_heads, -1, net.head_size)
            mixed = scaled_dot_product_attention(grouped, keys, values, attn_mask=mask_T[None, None, None], scale=layer.scale)
        return linear(mixed.reshape(rows, -1), layer.out, layer.out_bias)

    def _feed_forward(self, layer: Layer, h_BD: Any) -> Any:
        from torch.nn.functional import gelu, linear, silu

        up = linear(h_BD, layer.up, layer.up_bias)
        if self._net.llama:
            gate, up = up.chunk(2, dim=-1)
            return linear(silu(gate) * up, layer.down, layer.down_bias)
        return linear(gelu(up, approximate="tanh"), layer.down, layer.down_bias)

    def _normalised(self, x_BD: Any, gain: Any, bias: Any) -> Any:
        from torch.nn.functional import layer_norm, rms_norm

        shape, epsilon = x_BD.shape[-1:], self._net.epsilon
        y = rms_norm(x_BD, shape, gain, epsilon) if self._net.llama else layer_norm(x_BD, shape, gain, bias, epsilon)
        return y.to(self._dtype)

    def _rotated(self, heads_BHE: Any, position: Any) -> Any:
        import torch

        cosine, sine = self._rotary[position].chunk(2, dim=-1)
        a, b = heads_BHE.float().chunk(2, dim=-1)
        return torch.cat([a * cosine - b * sine, b * cosine + a * sine], dim=-1).to(self._dtype)


def _moved(layer: Layer, device: str, dtype: Any) -> Layer:
    """Norms stay float32, since sums do."""

    def moved(name: str, tensor: Any) -> Any:
        if tensor is None or isinstance(tensor, float):
            return tensor
        return tensor.detach().to(device=device, dtype=tensor.dtype if name.startswith("norm") else dtype).contiguous()

    return Layer(**{name: moved(name, getattr(layer, name)) for name in Layer.__dataclass_fields__})


class Transformers:
    """Any causal model, through its own forward and cache, which grows: `span` is the position's own."""

    def __init__(self, net: Any, job: Job, device: str) -> None:
        import copy

        import torch

        self._dtype = getattr(torch, job.dtype)
        same = net.dtype == self._dtype and net.device == torch.device(device)
        self._net = net if same else copy.deepcopy(net).to(device=device, dtype=self._dtype)
        self._cache: Any = None

    def start(self) -> None:
        from transformers import DynamicCache

        self._cache = DynamicCache()

    def step(self, token_B: Any, position: Any, span: int) -> Any:
        positions = position.expand_as(token_B)[:, None]
        out = self._net(input_ids=token_B[:, None], position_ids=positions, past_key_values=self._cache, use_cache=True)
        return out.logits[:, -1].float()

    def keep(self, index_B: Any, position: int) -> None:
        self._cache.batch_select_indices(index_B)

"""The PyTorch engine, on any device: waves of stories that start together, so that all share one position and need no mask.

The cache is one block of memory, (layers, 2, slots, heads, tokens, head size), read up to the position; rows whose stories ended
are dropped, by moving the others together, once a quarter of the wave is done. When a wave is over the next one starts.

Bits: the products of PyTorch may sum in another order for another number of rows, so a logit may differ in its last bits between
numbers of slots and threads; a draw changes when that moves a boundary across its random number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from refeed.families.language.sampling.draws import Finished, Job, choose, uniform
from refeed.families.language.sampling.network import Layer, Network, read

LIVE = 0.75  # a wave is compacted when fewer of its rows are live


class Decoder(Protocol):
    """One token at a time for a wave of rows, from position 0 on."""

    def start(self, rows: int) -> None: ...

    def step(self, token_B: Any, position: int) -> Any:
        """Logits after `token_B` at `position`: (rows, vocabulary), float32."""
        ...

    def keep(self, index_B: Any) -> None:
        """Go on with these rows only."""
        ...


def stories(net: Any, job: Job, *, device: str) -> Iterator[Finished]:
    """Every story of the job, a wave at a time."""
    import torch

    with torch.inference_mode():
        network = read(net)
        decoder: Decoder = Plain(network, job, device) if network is not None else Transformers(net, job, device)
        for first in range(0, job.stories, job.slots):
            yield from _wave(decoder, job, np.arange(first, min(first + job.slots, job.stories)), device)


def logits_of(net: Any, job: Job, tokens_BT: np.ndarray, *, device: str = "cpu") -> np.ndarray:
    """Logits before each of the given tokens, (stories, tokens, vocabulary): how the engine is held against others."""
    import torch

    network = read(net)
    with torch.inference_mode():
        decoder: Decoder = Plain(network, job, device) if network is not None else Transformers(net, job, device)
        decoder.start(len(tokens_BT))
        shifted = np.concatenate([np.full((len(tokens_BT), 1), job.end), tokens_BT[:, :-1]], axis=1).astype(np.int64)
        steps = [decoder.step(torch.from_numpy(shifted[:, t].copy()).to(device), t).cpu() for t in range(shifted.shape[1])]
        return np.asarray(torch.stack(steps, dim=1).numpy())


def _wave(decoder: Decoder, job: Job, story: np.ndarray, device: str) -> Iterator[Finished]:
    import torch

    rows = np.arange(len(story))  # of the wave; those still in the cache, ended ones among them
    written = np.full((len(story), job.limit), job.end, dtype=np.int32)
    length = np.zeros(len(story), dtype=np.int32)
    going = np.ones(len(story), dtype=bool)  # of the rows in the cache
    token = torch.full((len(story),), job.end, device=device)
    decoder.start(len(story))
    for position in range(job.limit):
        u = torch.from_numpy(uniform(job.key, job.first + story[rows], position)).to(device)
        token = choose(decoder.step(token, position), u, job.draws)
        if (given := job.given(story[rows], position)) is not None:
            forced = torch.from_numpy(given.astype(np.int64)).to(device)
            token = torch.where(forced >= 0, forced, token)
        drawn = token.cpu().numpy()
        written[rows[going], position] = drawn[going]
        length[rows[going]] += 1
        going &= drawn != job.end
        if not going.any():
            break
        if going.mean() < LIVE:
            index = torch.from_numpy(np.flatnonzero(going)).to(device)
            decoder.keep(index)
            token, rows, going = token[index], rows[going], going[going]
    yield job.first + story, length, written[np.arange(job.limit) < length[:, None]]


class Plain:
    """GPT-2 and Llama in plain PyTorch. Products and the cache have the job's dtype; sums, norms and logits are float32."""

    def __init__(self, network: Network, job: Job, device: str) -> None:
        import torch

        self._net, self._rows = network, 0
        self._dtype = getattr(torch, job.dtype)
        self._layers = [_moved(layer, device, self._dtype) for layer in network.layers]

        def moved(tensor: Any) -> Any:
            return None if tensor is None else tensor.detach().float().to(device)

        self._tokens, self._positions, self._rotary = (moved(part) for part in (network.tokens, network.positions, network.rotary))
        self._norm, self._norm_bias, self._head = (moved(part) for part in (network.norm, network.norm_bias, network.head))
        shape = (len(network.layers), 2, min(job.slots, job.stories), network.kv_heads, job.limit, network.head_size)
        self._cache = torch.empty(shape, dtype=self._dtype, device=device)

    def start(self, rows: int) -> None:
        self._rows = rows

    def step(self, token_B: Any, position: int) -> Any:
        x_BD = self._tokens[token_B]
        if self._positions is not None:
            x_BD = x_BD + self._positions[position]
        for number, layer in enumerate(self._layers):
            x_BD = x_BD + self._attention(layer, number, self._normalised(x_BD, layer.norm1, layer.norm1_bias), position)
            x_BD = x_BD + self._feed_forward(layer, self._normalised(x_BD, layer.norm2, layer.norm2_bias))
        return self._normalised(x_BD, self._norm, self._norm_bias).float() @ self._head.T

    def keep(self, index_B: Any) -> None:
        self._rows = len(index_B)
        for layer in self._cache:  # a layer at a time, so that little memory is needed beside it
            for half in layer:
                half[: self._rows] = half[index_B]

    def _attention(self, layer: Layer, number: int, h_BD: Any, position: int) -> Any:
        import torch

        net, rows = self._net, self._rows
        qkv = torch.nn.functional.linear(h_BD, layer.qkv, layer.qkv_bias).view(rows, -1, net.head_size)
        q_BHE, k_BHE, v_BHE = qkv.split([net.heads, net.kv_heads, net.kv_heads], dim=1)
        if net.llama:
            q_BHE, k_BHE = self._rotated(q_BHE, position), self._rotated(k_BHE, position)
        keys, values = self._cache[number, :, :rows, :, : position + 1]
        keys[:, :, position], values[:, :, position] = k_BHE, v_BHE
        mixed = torch.nn.functional.scaled_dot_product_attention(
            q_BHE[:, :, None], keys, values, scale=layer.scale, enable_gqa=net.heads != net.kv_heads
        )
        return torch.nn.functional.linear(mixed.reshape(rows, -1), layer.out, layer.out_bias)

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

    def _rotated(self, heads_BHE: Any, position: int) -> Any:
        import torch

        cosine, sine = self._rotary[position].chunk(2)
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
    """Any causal model, through its own forward and cache."""

    def __init__(self, net: Any, job: Job, device: str) -> None:
        import copy

        import torch

        self._dtype = getattr(torch, job.dtype)
        same = net.dtype == self._dtype and net.device == torch.device(device)
        self._net = net if same else copy.deepcopy(net).to(device=device, dtype=self._dtype)
        self._cache: Any = None

    def start(self, rows: int) -> None:
        from transformers import DynamicCache

        self._cache = DynamicCache()

    def step(self, token_B: Any, position: int) -> Any:
        import torch

        positions = torch.full_like(token_B[:, None], position)
        out = self._net(input_ids=token_B[:, None], position_ids=positions, past_key_values=self._cache, use_cache=True)
        return out.logits[:, -1].float()

    def keep(self, index_B: Any) -> None:
        self._cache.batch_select_indices(index_B)

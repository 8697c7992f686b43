"""LLaMA in plain torch, over a static cache so that a step can be recorded as a graph."""

# B sequences, L new tokens, S cached tokens that are looked at, E hidden, V vocabulary,
# H query heads, G key/value heads, D head size, R features of a head that are rotated

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812

from edgellm.checkpoint.family_configs import FAMILIES
from edgellm.checkpoint.layer_config import LayerConfig, Rotary
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.models.rope import wavelengths

Product = Callable[[torch.Tensor], torch.Tensor]
"""Multiplication by a weight: (..., K) to (..., N)."""

Angles: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Cosines and sines, by which heads turn."""

CAUSAL = "causal"

Mask: TypeAlias = torch.Tensor | str | None
"""The places that tokens attend to: those true in (L, S), ``CAUSAL`` ones up to its own, or all."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer's weights, under the checkpoint's names.

    ``qkv_proj`` is queries, keys and values in one product, and ``gate_up_proj`` gate and up;
    Norms are called by where
    they stand, None for those that the family has not; ``own`` is what is the layer's own.
    """

    before_attention: torch.Tensor | None
    qkv_proj: Product
    o_proj: Product
    after_attention: torch.Tensor | None
    before_mlp: torch.Tensor | None
    gate_up_proj: Product
    down_proj: Product
    after_mlp: torch.Tensor | None
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None
    own: LayerConfig


@dataclass(frozen=True, slots=True)
class Model:
    """All weights, and the numbers that say how they are used."""

    config: ModelConfig
    embed_tokens: Callable[[torch.Tensor], torch.Tensor]
    layers: Sequence[Layer]
    norm: torch.Tensor
    lm_head: Product
    dtype: torch.dtype
    device: torch.device


class StaticCache:
    """Keys and values (B, G, capacity, D) of every layer, and the angles of every position.

    Its tensors never move, as a recorded graph needs it.
    """

    def __init__(self, model: Model, *, batch: int, capacity: int) -> None:
        config = model.config
        self.batch: int
        self.capacity: int
        self.batch, self.capacity = batch, capacity
        shape = (batch, config.num_key_value_heads, capacity, config.head_dim)
        options = {"dtype": model.dtype, "device": model.device}
        self.keys: list[torch.Tensor] = [torch.zeros(shape, **options) for _ in model.layers]
        self.values: list[torch.Tensor] = [torch.zeros(shape, **options) for _ in model.layers]
        # a model may have been made for shorter texts than these
        own = [config.for_context(capacity).layer(index) for index in range(len(model.layers))]
        self.rotaries: list[Rotary | None] = [layer.rotary for layer in own]
        self.angles: dict[Rotary, Angles] = {
            rotary: rope_angles(rotary, capacity, model.device)
            for rotary in self.rotaries
            if rotary is not None
        }


def rope_angles(rotary: Rotary, capacity: int, device: torch.device) -> Angles:
    """Return cosines and sines (capacity, 1, R) in float32; both halves of R have the same."""
    lengths = wavelengths(rotary.dim, rotary.theta, rotary.scaling)
    positions = torch.arange(capacity, dtype=torch.float64)
    angles = positions[:, None] / torch.from_numpy(lengths).double()  # (capacity, R / 2)
    angles = torch.cat([angles, angles], dim=-1)[:, None]
    factor = rotary.attention_factor
    cosines, sines = factor * angles.cos(), factor * angles.sin()
    return cosines.float().to(device), sines.float().to(device)


def hidden_states(
    model: Model,
    tokens: torch.Tensor,
    cache: StaticCache,
    positions: torch.Tensor,
    *,
    seen: int | None,
) -> torch.Tensor:
    """Return the hidden states (B, L, E) after all layers, before the last norm.

    Args:
        model: the weights.
        tokens: (B, L).
        cache: where their keys and values are stored, and those before them read.
        positions: (L,) of the tokens, one after the other, on the model's device.
        seen: tokens in the cache once these are stored, which attention looks at. None looks at
            the whole cache behind a mask that is computed from ``positions``: the same arithmetic
            for every step, as a recorded graph needs it.
    """
    config = model.config
    hidden = model.embed_tokens(tokens)
    if FAMILIES[config.model_type].scaled_embedding:
        hidden = hidden * torch.tensor(config.hidden_size**0.5, dtype=hidden.dtype)
    angles: dict[Rotary | None, Angles | None] = {
        rotary: (cosines[positions], sines[positions])
        for rotary, (cosines, sines) in cache.angles.items()
    }
    masks = {
        window: attention_mask(positions, cache.capacity, seen, window)
        for window in {layer.own.window for layer in model.layers}
    }
    for index, layer in enumerate(model.layers):
        keys, values = cache.keys[index], cache.values[index]
        x = normed(hidden, layer.before_attention, model)
        own_angles = angles.get(cache.rotaries[index])
        query, key, value = split_heads(layer.qkv_proj(x), layer, model, own_angles)
        keys.index_copy_(2, positions, key)
        values.index_copy_(2, positions, value)
        mask = masks[layer.own.window]
        gathered = attention(query, keys[:, :, :seen], values[:, :, :seen], mask, config)
        hidden = hidden + normed(layer.o_proj(gathered), layer.after_attention, model)
        x = normed(hidden, layer.before_mlp, model)
        added = layer.down_proj(gated(layer.gate_up_proj(x), config))
        hidden = hidden + normed(added, layer.after_mlp, model)
    return hidden


def logits(model: Model, hidden: torch.Tensor) -> torch.Tensor:
    """Return the logits (..., V) of hidden states (..., E)."""
    return capped(
        model.lm_head(rms_norm(hidden, model.norm, model)), model.config.final_logit_softcapping
    )


def capped(x: torch.Tensor, cap: float | None) -> torch.Tensor:
    """Return logits or scores with a soft cap; None: as they are."""
    if cap is None:
        return x
    return cap * torch.tanh(x / cap)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, model: Model) -> torch.Tensor:
    """Return the root mean square norm over the last axis."""
    exact = F.rms_norm(x.to(weight.dtype), weight.shape, weight, model.config.rms_norm_eps)
    return exact.to(x.dtype)


def normed(x: torch.Tensor, weight: torch.Tensor | None, model: Model) -> torch.Tensor:
    """Return a norm of states (B, L, E), or the states where there is none."""
    if weight is None:
        return x
    return rms_norm(x, weight, model)


def split_heads(
    qkv: torch.Tensor, layer: Layer, model: Model, angles: Angles | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Split the joined product (B, L, (H + 2 G) D), and rotate queries and keys.

    Returns:
        Queries (B, H, L, D), keys and values (B, G, L, D).
    """
    config = model.config
    batch, length, _ = qkv.shape
    query_heads, key_heads = config.num_attention_heads, config.num_key_value_heads
    heads = qkv.view(batch, length, query_heads + 2 * key_heads, config.head_dim)
    rotated, value = heads.split([query_heads + key_heads, key_heads], dim=2)
    kind = model.config.query_key_norm
    if kind is not None and not kind.after_rotation:
        rotated = norm_heads(rotated, layer, model, whole=kind.whole)
    if angles is not None:
        rotated = rotate(rotated, *angles)
    if kind is not None and kind.after_rotation:
        rotated = norm_heads(rotated, layer, model, whole=kind.whole)
    rotated = rotated.transpose(1, 2)  # (B, H + G, L, D)
    return rotated[:, :query_heads], rotated[:, query_heads:], value.transpose(1, 2)


def norm_heads(heads: torch.Tensor, layer: Layer, model: Model, *, whole: bool) -> torch.Tensor:
    """Return queries and keys (B, L, H + G, D) normalized, each head or those of a token whole."""
    query_heads = model.config.num_attention_heads
    normalized = []
    for part, weight in (
        (heads[:, :, :query_heads], layer.q_norm),
        (heads[:, :, query_heads:], layer.k_norm),
    ):
        assert weight is not None, "the loader reads both"
        if whole:
            normalized.append(rms_norm(part.flatten(2), weight, model).view(part.shape))
        else:
            normalized.append(rms_norm(part, weight, model))
    return torch.cat(normalized, dim=2)


def rotate(heads: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Return heads (B, L, ..., D) rotated by the angles of (L, 1, R), computed in float32.

    The first R of D features turn; the first half of R is the first coordinate of each pair, as
    Hugging Face's weights have it.
    """
    exact, unchanged = heads.tensor_split([cosines.shape[-1]], dim=-1)
    exact = exact.float()
    first, second = exact.chunk(2, dim=-1)
    half_turned = torch.cat([-second, first], dim=-1)
    rotated = torch.addcmul(exact * cosines, half_turned, sines).to(heads.dtype)
    if not unchanged.shape[-1]:
        return rotated
    return torch.cat([rotated, unchanged], dim=-1)


def attention_mask(
    positions: torch.Tensor, capacity: int, seen: int | None, window: int | None
) -> Mask:
    """Return what the tokens at some positions see of the first ``seen`` places, or of all."""
    length = len(positions)
    if seen is not None and (window is None or seen <= window):
        if length == 1:
            return None
        if length == seen:
            return CAUSAL
    places = torch.arange(seen or capacity, device=positions.device)
    distance = positions[:, None] - places  # (L, S)
    mask: torch.Tensor = distance >= 0
    if window is not None:
        mask = mask & (distance < window)
    return mask


def attention(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: Mask,
    config: ModelConfig,
) -> torch.Tensor:
    """Return attention (B, L, H * D) of queries (B, H, L, D) over keys and values (B, G, S, D)."""
    batch, heads, length, size = query.shape
    groups = keys.shape[1]
    scale = config.query_pre_attn_scalar**-0.5
    cap = config.attn_logit_softcapping
    if cap is not None:
        return _capped_attention(scale * query, keys, values, mask, cap)
    if length == 1:
        # (B, G, H / G, D): query heads that share a key head stand as its rows, so no key is copied
        query = query.reshape(batch, groups, -1, size)
        gathered = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=scale)
        return gathered.reshape(batch, 1, heads * size)
    if groups != heads:
        keys = keys.repeat_interleave(heads // groups, dim=1)
        values = values.repeat_interleave(heads // groups, dim=1)
    if mask is CAUSAL:
        gathered = F.scaled_dot_product_attention(query, keys, values, is_causal=True, scale=scale)
    else:
        gathered = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=scale)
    return gathered.transpose(1, 2).reshape(batch, length, heads * size)


def _capped_attention(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: Mask, cap: float
) -> torch.Tensor:
    """Return what ``attention`` does of scaled queries, with a soft cap of the scores."""
    batch, heads, length, size = query.shape
    groups, total = keys.shape[1:3]
    # (B, G, H / G * L, D): the heads that share a key are rows of one product
    rows = query.reshape(batch, groups, -1, size)
    scores = capped(rows @ keys.transpose(2, 3), cap).view(batch, heads, length, total)
    if mask is CAUSAL:
        mask = torch.ones((length, total), dtype=torch.bool, device=query.device).tril()
    if isinstance(mask, torch.Tensor):
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    gathered = (weights.view(batch, groups, -1, total) @ values).view(query.shape)
    return gathered.transpose(1, 2).reshape(batch, length, heads * size)


def gated(gate_up: torch.Tensor, config: ModelConfig) -> torch.Tensor:
    """Return ``silu(gate) * up`` of [gate | up], or with the family's GELU."""
    gate, up = gate_up.chunk(2, dim=-1)
    if "gelu_pytorch_tanh" in FAMILIES[config.model_type].activations:
        return F.gelu(gate, approximate="tanh") * up
    return F.silu(gate) * up

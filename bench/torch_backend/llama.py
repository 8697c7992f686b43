"""LLaMA in plain torch: tensors in, tensors out; with a static cache, so that a step can be recorded as a graph."""

# B sequences, L new tokens, S places of the cache that are looked at, E hidden, V vocabulary, H
# query heads, G key/value heads, D head size

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812

from edgellm.checkpoint.model_config import ModelConfig
from edgellm.models.rope import wavelengths

Product = Callable[[torch.Tensor], torch.Tensor]
"""Multiplication by a weight: (..., K) to (..., N)."""

CAUSAL = "causal"
Mask: TypeAlias = torch.Tensor | str | None
"""What tokens see: all places, ``CAUSAL`` (each those up to its own), or true where a token (row) sees a place (column)."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer's weights; queries, keys and values are one product, and so are gate and up."""

    input_layernorm: torch.Tensor
    qkv_proj: Product
    o_proj: Product
    post_attention_layernorm: torch.Tensor
    gate_up_proj: Product
    down_proj: Product
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None
    window: int | None
    """Tokens that attention looks back over; None: all."""


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
    """Keys and values (B, G, capacity, D) of every layer, and the angles of every position; nothing in it ever moves."""

    def __init__(self, model: Model, *, batch: int, capacity: int) -> None:
        config = model.config
        self.batch, self.capacity = batch, capacity
        shape = (batch, config.num_key_value_heads, capacity, config.head_dim)
        place = {"dtype": model.dtype, "device": model.device}
        self.keys = [torch.zeros(shape, **place) for _ in model.layers]
        self.values = [torch.zeros(shape, **place) for _ in model.layers]
        self.cosines, self.sines = angles(config, capacity, model.device)


def angles(
    config: ModelConfig, capacity: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines (capacity, 1, D) in float32, those of a pair of features at both of its places."""
    lengths = torch.from_numpy(
        wavelengths(config.head_dim, config.rope_theta, config.rope_scaling)
    ).double()
    turns = torch.arange(capacity, dtype=torch.float64)[:, None] / lengths
    both = torch.cat([turns, turns], dim=-1)[:, None]
    return both.cos().float().to(device), both.sin().float().to(device)


def hidden_states(
    model: Model,
    tokens: torch.Tensor,
    cache: StaticCache,
    positions: torch.Tensor,
    *,
    seen: int | None,
) -> torch.Tensor:
    """Hidden states (B, L, E) after all layers, before the last norm.

    Args:
        model: the weights.
        tokens: (B, L).
        cache: where keys and values go, and come from.
        positions: (L,) of the tokens, one after the other, on the model's device.
        seen: places of the cache that hold tokens once these are stored: what attention looks at.
            None looks at the whole cache behind a mask made of ``positions``: the same arithmetic
            for every step, as a recorded graph needs it.
    """
    hidden = model.embed_tokens(tokens)
    turn = (cache.cosines[positions], cache.sines[positions])
    masks = {
        window: mask_of(positions, cache.capacity, seen, window)
        for window in {one.window for one in model.layers}
    }
    places = cache.capacity if seen is None else seen
    for layer, keys, values in zip(model.layers, cache.keys, cache.values, strict=True):
        x = norm(hidden, layer.input_layernorm, model)
        query, key, value = heads_of(layer.qkv_proj(x), layer, model, turn)
        keys.index_copy_(2, positions, key)
        values.index_copy_(2, positions, value)
        found = attend(query, keys[:, :, :places], values[:, :, :places], masks[layer.window])
        hidden = hidden + layer.o_proj(found)
        x = norm(hidden, layer.post_attention_layernorm, model)
        hidden = hidden + layer.down_proj(gated(layer.gate_up_proj(x)))
    return hidden


def logits(model: Model, hidden: torch.Tensor) -> torch.Tensor:
    """Logits (..., V) of hidden states (..., E)."""
    return model.lm_head(norm(hidden, model.norm, model))


def norm(x: torch.Tensor, weight: torch.Tensor, model: Model) -> torch.Tensor:
    """Root mean square norm over the last axis."""
    return F.rms_norm(x, weight.shape, weight, model.config.rms_norm_eps)


def heads_of(
    joined: torch.Tensor, layer: Layer, model: Model, turn: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries (B, H, L, D), keys and values (B, G, L, D) of the joined product (B, L, (H + 2 G) D), turned by position."""
    config = model.config
    batch, length, _ = joined.shape
    queries, keys = config.num_attention_heads, config.num_key_value_heads
    heads = joined.view(batch, length, queries + 2 * keys, config.head_dim)
    turned, value = heads[:, :, : queries + keys], heads[:, :, queries + keys :]
    if layer.q_norm is not None and layer.k_norm is not None:
        query, key = (
            norm(turned[:, :, :queries], layer.q_norm, model),
            norm(turned[:, :, queries:], layer.k_norm, model),
        )
        turned = torch.cat([query, key], dim=2)
    turned = rotated(turned, *turn).transpose(1, 2)
    return turned[:, :queries], turned[:, queries:], value.transpose(1, 2)


def rotated(heads: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Heads (B, L, ..., D) turned by angles (L, 1, D), in float32."""
    exact = heads.float()
    first, second = exact.chunk(2, dim=-1)
    return torch.addcmul(exact * cosine, torch.cat([-second, first], dim=-1), sine).to(heads.dtype)


def mask_of(positions: torch.Tensor, capacity: int, seen: int | None, window: int | None) -> Mask:
    """What the tokens at some positions see of the first ``seen`` places, or of all."""
    length = positions.shape[0]
    if seen is not None and (window is None or seen <= window):
        if length == 1:
            return None
        if length == seen:
            return CAUSAL
    distance = positions[:, None] - torch.arange(
        capacity if seen is None else seen, device=positions.device
    )
    seen_by: torch.Tensor = (
        distance >= 0 if window is None else (distance >= 0) & (distance < window)
    )
    return seen_by


def attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: Mask
) -> torch.Tensor:
    """What each token gathers, (B, L, H D), of queries (B, H, L, D) and places (B, G, S, D)."""
    batch, heads, length, size = query.shape
    groups = keys.shape[1]
    if length == 1:  # query heads that share a key head stand as its rows: no copy of keys
        found = F.scaled_dot_product_attention(
            query.reshape(batch, groups, -1, size), keys, values, attn_mask=mask
        )
        return found.reshape(batch, 1, heads * size)
    if groups != heads:
        keys, values = (part.repeat_interleave(heads // groups, dim=1) for part in (keys, values))
    if mask is CAUSAL:
        found = F.scaled_dot_product_attention(query, keys, values, is_causal=True)
    else:
        found = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
    return found.transpose(1, 2).reshape(batch, length, heads * size)


def gated(joined: torch.Tensor) -> torch.Tensor:
    """``silu(gate) * up`` of [gate | up]."""
    gate, up = joined.chunk(2, dim=-1)
    return F.silu(gate) * up

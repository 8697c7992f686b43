"""A decoder layer as the kernels see it: sizes, weights, and a sequence's keys and values."""

# L new tokens, G key/value heads, D head size, R features of a head that are rotated

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgellm.kernels.codegen.abi import MAX_SPLIT_QUERIES, ONE_SPLIT, split_of
from edgellm.kernels.product_steps import Matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShape:
    """The sizes of a decoder layer, in the words of config.json, and what differs by family.

    Attributes:
        rotary_dim: features of a head that positions rotate, its first ones; 0: they rotate none.
        attention_scale: what scores are multiplied by.
        whole_norm: whether the heads of a token's queries are normed together, and its keys'.
        normed_last: whether queries and keys are normed after they are rotated.
        angles: the name of the buffer with the cosines and sines of the call's positions.
    """

    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    rotary_dim: int
    eps: float
    attention_scale: float
    whole_norm: bool = False
    normed_last: bool = False
    angles: str = "cos and sin"


@dataclass(frozen=True, slots=True)
class Vector:
    """A norm's weight: its address, and the kind of its numbers (``f16``, ``bf16``, ``f32``)."""

    address: int
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """A decoder layer's weights; each product is one matrix, or several side by side.

    Norms are called by where they stand; None where there is none.
    """

    qkv: Sequence[Matrix]
    output: Sequence[Matrix]
    gate_up: Sequence[Matrix]
    down: Sequence[Matrix]
    before_attention: Vector | None = None
    after_attention: Vector | None = None
    before_mlp: Vector | None = None
    after_mlp: Vector | None = None
    query_norm: Vector | None = None
    key_norm: Vector | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KVView:
    """One sequence's keys and values in a layer, and the part of them that queries attend to.

    Attributes:
        kind: ``f32``, ``f16``, ``q8`` or ``q4`` (``kernels.attention.kv_storage``).
        keys: address of (G, capacity, D), less the bytes that would lie before its first place if
            that were position 0.
        values: likewise.
        head_bytes: from one head to the next.
        position: the position of the first new token.
        length: the position after the last new token.
        window: keys that a query looks back over, its own among them.
        max_exponent: of a split (``abi.split_of``).
        tables: of quantized ones, addresses of the keys' scales and biases, and of the values'.
        copied: how many of the last new tokens are also stored from ``copy_position`` on. Then the
            call's sequences are taken one after the other, in their order.
    """

    kind: str
    keys: int
    values: int
    head_bytes: int
    position: int
    length: int
    window: int
    max_exponent: int = ONE_SPLIT
    tables: tuple[int, int, int, int] = (0, 0, 0, 0)
    copied: int = 0
    copy_position: int = 0

    def splits(self, queries: int, *, whole: bool = False) -> Splits:
        """Return the splits of the keys for this many queries.

        There is one alone for many queries, which need no more, and with ``whole``.
        """
        if whole or queries > MAX_SPLIT_QUERIES:
            # the first of the splits with this exponent holds every position
            return Splits(count=1, first=8 * ONE_SPLIT, min_exponent=ONE_SPLIT)
        # the first key that the first new token sees
        first_key = max(0, self.position + 1 - self.window)
        first = split_of(first_key, self.max_exponent)
        last = split_of(self.length - 1, self.max_exponent)
        return Splits(count=last + 1 - first, first=first, min_exponent=0)


class Branches(NamedTuple):
    """Stretches of a trie's tokens (N of them) that follow one another, in depth-first order.

    Attributes:
        starts: the position of each one's first token (N,).
        lengths: tokens of each (N,).
        windows: keys that a query of each looks back over, its own among them (N,).
    """

    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    windows: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """The splits of the keys that a call attends to: how many, the first, the least exponent."""

    count: int
    first: int
    min_exponent: int

    @property
    def whole(self) -> bool:
        """Whether one split holds all keys, wherever they are."""
        return self.min_exponent == ONE_SPLIT

    def partial_results(self, queries: int) -> int:
        """Return how many partial results of a head there is memory for.

        Whole eights, so that memory does not move at each new split.
        """
        if self.count == 1:
            return queries
        return -(-self.count // 8) * 8 * queries


def cos_sin(
    wavelengths: npt.NDArray[np.float32], start: int, tokens: int
) -> npt.NDArray[np.float32]:
    """Return cosines, then sines, of each position's angles: (L, R)."""
    positions = np.arange(start, start + tokens, dtype=np.float32)
    # the reciprocal first, as MLX rounds it
    angles = positions[:, None] * (1 / wavelengths)[None]
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)

"""How a cache keeps numbers: as they are, in 16 bits, or packed into codes of 8 or 4 bits; and attention over each."""

# L new tokens, S tokens that are looked at, H query heads, G key/value heads, D head size

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx

GROUP = 32
"""Features of a head that share scale and bias."""


class QuantizedKV(NamedTuple):
    """Numbers (1, G, S, D) as MLX's affine codes; the last group of a head may be filled up with zeros."""

    codes: mx.array
    scales: mx.array
    biases: mx.array
    bits: int


KeysOrValues = mx.array | QuantizedKV
"""Keys or values (1, G, S, D) as attention takes them."""


@dataclass(frozen=True, slots=True)
class KVFormat:
    """A form of keys and values.

    Attributes:
        heads: G.
        head_dim: D.
        dtype: of the numbers, or of scales and biases.
        bits: of a code; None for plain numbers.
    """

    heads: int
    head_dim: int
    dtype: mx.Dtype
    bits: int | None = None

    @property
    def _width(self) -> int:
        return -(-self.head_dim // GROUP) * GROUP

    def empty(self, tokens: int) -> list[mx.array]:
        """Arrays with room for so many tokens along axis 2: keys, values; or codes, scales and biases of both, keys first."""
        if self.bits is None:
            return [mx.zeros((1, self.heads, tokens, self.head_dim), self.dtype) for _ in range(2)]
        shape, width = (1, 2 * self.heads, tokens), self._width
        codes = mx.zeros((*shape, width * self.bits // 32), mx.uint32)
        return [codes, *(mx.zeros((*shape, width // GROUP), self.dtype) for _ in range(2))]

    @property
    def names(self) -> Sequence[str]:
        """What the arrays are."""
        return ("keys", "values") if self.bits is None else ("codes", "scales", "biases")

    def packed(self, keys: mx.array, values: mx.array) -> list[mx.array]:
        """New keys and values (1, G, L, D) in this form."""
        if self.bits is None:
            return [keys.astype(self.dtype), values.astype(self.dtype)]
        # one launch that quantizes, three that write
        both = mx.concatenate([keys, values], axis=1).astype(self.dtype)
        if self._width != self.head_dim:
            both = mx.pad(both, [(0, 0), (0, 0), (0, 0), (0, self._width - self.head_dim)])
        return list(mx.quantize(both, group_size=GROUP, bits=self.bits))

    def seen(self, arrays: Sequence[mx.array]) -> tuple[KeysOrValues, KeysOrValues]:
        """Keys and values in arrays of this form."""
        if self.bits is None:
            return arrays[0], arrays[1]
        keys, values = (
            [array[:, start : start + self.heads] for array in arrays] for start in (0, self.heads)
        )
        return QuantizedKV(keys[0], keys[1], keys[2], self.bits), QuantizedKV(
            values[0], values[1], values[2], self.bits
        )

    @property
    def token_bytes(self) -> int:
        """Bytes that a token takes in one layer."""
        if self.bits is None:
            return 2 * self.heads * self.head_dim * self.dtype.size
        return (
            2
            * self.heads
            * (self._width * self.bits // 8 + 2 * (self._width // GROUP) * self.dtype.size)
        )


def attention(
    queries: mx.array,
    keys: KeysOrValues,
    values: KeysOrValues,
    *,
    scale: float,
    mask: mx.array | str | None,
) -> mx.array:
    """What queries (1, H, L, D) see (1, H, L, D)."""
    if not isinstance(keys, QuantizedKV) or not isinstance(values, QuantizedKV):
        assert not isinstance(keys, QuantizedKV)
        assert not isinstance(values, QuantizedKV), "both are kept alike"
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)
    _, heads, length, width = queries.shape
    groups, held = keys.codes.shape[1:3]
    filled = keys.scales.shape[3] * GROUP
    if filled != width:
        queries = mx.pad(queries, [(0, 0), (0, 0), (0, 0), (0, filled - width)])
    # The heads that share a key are rows of one product, so that codes are unpacked once for all of
    # them.
    rows = (queries * scale).reshape(1, groups, -1, filled)
    scores = _product(rows, keys, transpose=True)
    if isinstance(mask, str):
        mask = mx.arange(held - length, held)[:, None] >= mx.arange(held)[None]
    if mask is not None:
        shape = scores.shape
        hidden = mx.array(mx.finfo(scores.dtype).min, scores.dtype)
        scores = mx.where(mask, scores.reshape(1, groups, -1, length, held), hidden).reshape(shape)
    seen = _product(mx.softmax(scores, axis=-1, precise=True), values, transpose=False)
    return seen[..., :width].reshape(1, heads, length, width)


def _product(x: mx.array, packed: QuantizedKV, *, transpose: bool) -> mx.array:
    codes, scales, biases, bits = packed
    dtype = x.dtype
    if scales.dtype != dtype and dtype == mx.float32:
        scales, biases = scales.astype(dtype), biases.astype(dtype)
    return mx.quantized_matmul(
        x, codes, scales, biases, transpose=transpose, group_size=GROUP, bits=bits
    )

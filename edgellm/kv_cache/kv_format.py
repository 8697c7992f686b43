"""KV formats: keys and values as plain numbers or in 8 or 4 bits, and attention over each."""

# L new tokens, S tokens that are looked at, H query heads, G key/value heads, D head size

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx

GROUP = 32
"""Features of a head that share scale and bias."""


class QuantizedKV(NamedTuple):
    """Keys or values (1, G, S, D) in MLX's affine quantization: number = scale * code + bias.

    The last group of a head may be padded with zeros: W features, the next multiple of ``GROUP``.

    Attributes:
        codes: (1, G, S, W * bits / 32), 32-bit words.
        scales: (1, G, S, W / GROUP).
        biases: (1, G, S, W / GROUP).
        bits: bits per code.
    """

    codes: mx.array
    scales: mx.array
    biases: mx.array
    bits: int


KeysOrValues = mx.array | QuantizedKV
"""Keys or values (1, G, S, D) as attention takes them."""


@dataclass(frozen=True, slots=True)
class KVFormat:
    """How keys and values are stored.

    Attributes:
        heads: G.
        head_dim: D.
        dtype: the type of the numbers, or of scales and biases.
        bits: bits per code; None for plain numbers.
    """

    heads: int
    head_dim: int
    dtype: mx.Dtype
    bits: int | None = None

    @property
    def _padded_dim(self) -> int:
        return -(-self.head_dim // GROUP) * GROUP

    def empty(self, tokens: int) -> list[mx.array]:
        """Return arrays of zeros with room for this many tokens along axis 2.

        Plain: keys and values (1, G, tokens, D). Quantized: codes, scales and biases
        (1, 2 G, tokens, ...), keys first.
        """
        if self.bits is None:
            shape = (1, self.heads, tokens, self.head_dim)
            return [mx.zeros(shape, self.dtype), mx.zeros(shape, self.dtype)]
        both = (1, 2 * self.heads, tokens)
        groups = self._padded_dim // GROUP
        return [
            mx.zeros((*both, self._padded_dim * self.bits // 32), mx.uint32),
            mx.zeros((*both, groups), self.dtype),
            mx.zeros((*both, groups), self.dtype),
        ]

    @property
    def names(self) -> Sequence[str]:
        """The names of the arrays that ``empty`` returns."""
        if self.bits is None:
            return ("keys", "values")
        return ("codes", "scales", "biases")

    def pack(self, keys: mx.array, values: mx.array) -> list[mx.array]:
        """Return new keys and values (1, G, L, D) in arrays of this format."""
        if self.bits is None:
            return [_narrow(keys, self.dtype), _narrow(values, self.dtype)]
        # (1, 2 G, L, D): one launch quantizes both, and three write
        both = _narrow(mx.concatenate([keys, values], axis=1), self.dtype)
        padding = self._padded_dim - self.head_dim
        if padding:
            both = mx.pad(both, [(0, 0), (0, 0), (0, 0), (0, padding)])
        return list(mx.quantize(both, group_size=GROUP, bits=self.bits))

    def unpack(self, arrays: Sequence[mx.array]) -> tuple[KeysOrValues, KeysOrValues]:
        """Return the keys and the values that arrays of this format hold, as views."""
        if self.bits is None:
            keys, values = arrays
            return keys, values
        # (1, 2 G, S, ...) -> (1, G, S, ...) twice
        codes, scales, biases = arrays
        middle = self.heads
        return (
            QuantizedKV(codes[:, :middle], scales[:, :middle], biases[:, :middle], self.bits),
            QuantizedKV(codes[:, middle:], scales[:, middle:], biases[:, middle:], self.bits),
        )

    @property
    def number_bits(self) -> int:
        """Bits of a number, or of its code."""
        return self.bits or 8 * self.dtype.size

    @property
    def token_bytes(self) -> int:
        """Bytes that a token's keys and values take in one layer."""
        if self.bits is None:
            return 2 * self.heads * self.head_dim * self.dtype.size
        code_bytes = self._padded_dim * self.bits // 8
        scale_and_bias_bytes = 2 * (self._padded_dim // GROUP) * self.dtype.size
        return 2 * self.heads * (code_bytes + scale_and_bias_bytes)


def _narrow(numbers: mx.array, dtype: mx.Dtype) -> mx.array:
    """Return numbers in a type; finite ones beyond float16 become its largest."""
    if dtype == mx.float16 and numbers.dtype != mx.float16:
        largest = mx.finfo(mx.float16).max
        clipped = mx.clip(numbers, -largest, largest)
        # what is infinite stays so: it shows where a model is damaged
        numbers = mx.where(mx.isinf(numbers), numbers, clipped)
    return numbers.astype(dtype)


def attention(
    queries: mx.array,
    keys: KeysOrValues,
    values: KeysOrValues,
    *,
    scale: float,
    mask: mx.array | str | None,
    cap: float | None = None,
) -> mx.array:
    """Return softmax(scale Q K^T) V, the attention of Vaswani et al. 2017: (1, H, L, D).

    Args:
        queries: (1, H, L, D); query head h reads key/value head h // (H / G).
        keys: (1, G, S, D).
        values: (1, G, S, D), in the format of the keys.
        scale: the factor of the scores.
        mask: as ``cache.Mask``.
        cap: the scores become ``cap * tanh(score / cap)``, as in Gemma 2; None: they stay.
    """
    if cap is None and isinstance(keys, mx.array) and isinstance(values, mx.array):
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)
    _, heads, length, head_dim = queries.shape
    if isinstance(keys, QuantizedKV):
        _, kv_heads, total, _ = keys.codes.shape
        padded_dim = keys.scales.shape[3] * GROUP
    else:
        _, kv_heads, total, padded_dim = keys.shape
    if padded_dim != head_dim:
        queries = mx.pad(queries, [(0, 0), (0, 0), (0, 0), (0, padded_dim - head_dim)])
    # (1, H, L, W) -> (1, G, H/G * L, W): the heads that share a key are rows of one product, so
    # that its codes are unpacked once for all of them
    rows = (queries * scale).reshape(1, kv_heads, -1, padded_dim)
    # (1, G, H/G * L, S)
    scores = _product(rows, keys, transpose=True)
    if cap is not None:
        scores = cap * mx.tanh(scores / cap)
    if isinstance(mask, str):  # causal: the last L keys are those of the queries
        mask = mx.arange(total - length, total)[:, None] >= mx.arange(total)[None]
    if mask is not None:
        shape = scores.shape
        # -> (1, G, H/G, L, S), under a mask (L, S)
        scores = scores.reshape(1, kv_heads, -1, length, total)
        lowest = mx.array(mx.finfo(scores.dtype).min, scores.dtype)
        scores = mx.where(mask, scores, lowest).reshape(shape)
    weights = mx.softmax(scores, axis=-1, precise=True)
    # (1, G, H/G * L, W) -> (1, H, L, D)
    output = _product(weights, values, transpose=False)
    return output[..., :head_dim].reshape(1, heads, length, head_dim)


def _product(x: mx.array, packed: KeysOrValues, *, transpose: bool) -> mx.array:
    if isinstance(packed, mx.array):
        if transpose:
            return x @ packed.swapaxes(2, 3)
        return x @ packed
    codes, scales, biases, bits = packed
    # MLX wants one type; 16-bit scales of a 32-bit product lose nothing by it.
    if scales.dtype != x.dtype and x.dtype == mx.float32:
        scales = scales.astype(mx.float32)
        biases = biases.astype(mx.float32)
    return mx.quantized_matmul(
        x, codes, scales, biases, transpose=transpose, group_size=GROUP, bits=bits
    )

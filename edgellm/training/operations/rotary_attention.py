"""Attention of sequences side by side in one operation: heads are rotated, and attend.

MLX's derivative of a slice is an array of zeros as long as all sequences, for each of them.
"""

# T tokens of all sequences, L of one, H query heads, G key/value heads, D numbers of a head

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.models.layers import LayerSpans
from edgellm.models.llama import Attention
from edgellm.training.operations.attention import Scores, attended, attended_derivatives

Floats = npt.NDArray[np.float32]


def is_rotary(attention: Attention) -> bool:
    """Return whether a family's attention is LLaMA's: nothing but positions turns its heads."""
    return (
        type(attention) is Attention
        and attention.q_norm is None
        and attention.wavelengths is not None
        and attention.rotary_factors is None
    )


class RotaryAttention(Attention):
    """Self-attention of whole sequences whose tokens see all that is before them.

    Args:
        attention: with the products; ``is_rotary`` says whether it may be.

    Attributes:
        qkv_proj: the product of queries, keys and values.
        o_proj: that of what is attended to.
        result: of the same call before, or empty, to be filled; None: none is kept.
    """

    def __init__(self, attention: Attention) -> None:
        self.qkv_proj, self.o_proj = attention.qkv_proj, attention.o_proj
        self.result: list[mx.array] | None = None
        self._heads, self._kv_heads = attention.num_heads, attention.num_key_value_heads
        self._head_dim, self._rotary_dim = attention.head_dim, attention.rotary_dim
        self._scale, self._cap = attention.scale, attention.cap
        assert attention.wavelengths is not None
        self._wavelengths: Floats = np.array(attention.wavelengths)

    def __call__(self, x: mx.array, spans: LayerSpans) -> mx.array:
        """Return attention's part (1, T, E) for normalized states (1, T, E)."""
        return self.o_proj(self._attend_all(self.qkv_proj(x), [length for _, length in spans]))

    def _attend_all(self, qkv: mx.array, lengths: Sequence[int]) -> mx.array:
        """Return (1, T, H*D) of queries, keys and values (1, T, (H + 2G)*D)."""
        result = self.result

        @mx.custom_function
        def attend(qkv: mx.array) -> mx.array:
            if result:
                return result[0]
            output = np.empty((qkv.shape[1], self._heads * self._head_dim), np.float32)
            for rows, q, k, v in self._sequences(qkv, lengths):
                found = attended(q, k, v, self._scores(q))
                _by_token(output[rows], found)[:] = found
            made = mx.array(output[None])
            if result is not None:
                result.append(made)
            return made

        @attend.vjp
        def attend_vjp(qkv: mx.array, gradient: mx.array, _: mx.array) -> mx.array:
            by_output: Floats = np.array(gradient, copy=False)[0]
            by_qkv = np.empty(qkv.shape[1:], np.float32)
            for rows, q, k, v in self._sequences(qkv, lengths):
                own = np.ascontiguousarray(_by_token(by_output[rows], q))
                parts = attended_derivatives(q, k, v, own, scores=self._scores(q))
                by_q, by_k, by_v = parts
                self._rotate(by_q, back=True)
                self._rotate(by_k, back=True)
                begin = 0
                for part in (by_q, by_k, by_v):
                    end = begin + len(part) * self._head_dim
                    _by_token(by_qkv[rows, begin:end], part)[:] = part
                    begin = end
            return mx.array(by_qkv[None])

        return cast(mx.array, attend(qkv))

    def _sequences(
        self, qkv: mx.array, lengths: Sequence[int]
    ) -> Iterator[tuple[slice, Floats, Floats, Floats]]:
        """Yield the rows of each sequence, its rotated queries and keys, and values (N, L, D)."""
        numbers: Floats = np.array(qkv, copy=False)[0]
        begin = 0
        for length in lengths:
            rows = slice(begin, begin + length)
            # (L, (H + 2G)*D) -> (H + 2G, L, D)
            heads = np.ascontiguousarray(
                numbers[rows].reshape(length, -1, self._head_dim).swapaxes(0, 1)
            )
            first_value = self._heads + self._kv_heads
            self._rotate(heads[:first_value])
            yield rows, heads[: self._heads], heads[self._heads : first_value], heads[first_value:]
            begin += length

    def _rotate(self, heads: Floats, *, back: bool = False) -> None:
        """Turn heads (N, L, D) by their position, in place; or back again."""
        half = self._rotary_dim // 2
        # (L, R/2)
        angles = np.arange(heads.shape[1], dtype=np.float32)[:, None] / self._wavelengths
        cosines, sines = np.cos(angles), np.sin(angles)
        if back:
            np.negative(sines, out=sines)
        first, second = heads[..., :half], heads[..., half : 2 * half]
        turned = first * cosines
        turned -= second * sines
        second *= cosines
        second += first * sines
        first[:] = turned

    def _scores(self, queries: Floats) -> Scores:
        return Scores.of_causal(queries.shape[1], self._scale, self._cap)


def _by_token(rows: Floats, heads: Floats) -> Floats:
    """Return rows (L, N*D) as heads lie (N, L, D), without a copy."""
    return rows.reshape(len(rows), *heads.shape[::2]).swapaxes(0, 1)

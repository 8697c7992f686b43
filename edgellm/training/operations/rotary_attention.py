"""Attention of sequences side by side in one operation: heads are rotated, and attend.

MLX's derivative of a slice is an array of zeros as long as all sequences, for each of them.
"""

# T tokens of all sequences, L of one, H query heads, G key/value heads, D numbers of a head

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.kernels.codegen.abi import CAUSAL, ROTATE, causal_scratch
from edgellm.kernels.kernel_engine import (
    KernelEngine,
    Step,
    float32_bits,
    make_step,
    step_array,
)
from edgellm.models.layers import LayerSpans
from edgellm.models.linear import Linear
from edgellm.models.llama import Attention
from edgellm.training.operations.attention import Scores, attended, attended_derivatives

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]


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
        kernels: compute it; None where NumPy does.

    Attributes:
        qkv_proj: the product of queries, keys and values.
        o_proj: that of what is attended to.
        result: of the same call before, or empty, to be filled; None: none is kept.
        heads: what attends.
    """

    def __init__(self, attention: Attention, kernels: KernelEngine | None) -> None:
        self.qkv_proj: Linear = attention.qkv_proj
        self.o_proj: Linear = attention.o_proj
        self.result: list[mx.array] | None = None
        assert attention.wavelengths is not None
        heads = _Heads(
            attention.num_heads,
            attention.num_key_value_heads,
            attention.head_dim,
            attention.rotary_dim,
            attention.scale,
            np.array(attention.wavelengths),
        )
        self.heads: HeadAttention = _NumpyHeads(heads, attention.cap)
        if kernels is not None and attention.cap is None:
            self.heads = _KernelHeads(heads, kernels)

    def __call__(self, x: mx.array, spans: LayerSpans) -> mx.array:
        """Return attention's part (1, T, E) for normalized states (1, T, E)."""
        return self.o_proj(self._attend_all(self.qkv_proj(x), [length for _, length in spans]))

    def _attend_all(self, qkv: mx.array, lengths: Sequence[int]) -> mx.array:
        """Return (1, T, H*D) of queries, keys and values (1, T, (H + 2G)*D)."""
        result, heads = self.result, self.heads

        @mx.custom_function
        def attend(qkv: mx.array) -> mx.array:
            if result:
                return result[0]
            made = mx.array(heads.attended(_rows(qkv), lengths)[None])
            if result is not None:
                result.append(made)
            return made

        @attend.vjp
        def attend_vjp(qkv: mx.array, gradient: mx.array, _: mx.array) -> mx.array:
            by_qkv = heads.derivatives(_rows(qkv), lengths, _rows(gradient))
            return mx.array(by_qkv[None])

        return cast(mx.array, attend(qkv))


def _rows(array: mx.array) -> Floats:
    """Return (1, T, N) as (T, N), one row after the other in memory."""
    return np.ascontiguousarray(np.array(array, copy=False)[0])


@dataclass(frozen=True, slots=True)
class _Heads:
    """A layer's heads: H, G, D, features that are rotated, the scores' scale, wavelengths."""

    count: int
    kv_count: int
    head_dim: int
    rotary_dim: int
    scale: float
    wavelengths: Floats

    def cosines_and_sines(self, length: int) -> tuple[Floats, Floats]:
        """Return those of each position's angles, (L, R/2)."""
        angles = np.arange(length, dtype=np.float32)[:, None] / self.wavelengths
        return np.cos(angles), np.sin(angles)


class HeadAttention(Protocol):
    """Attention of rows (T, (H + 2G)*D) of sequences side by side."""

    def attended(self, qkv: Floats, lengths: Sequence[int]) -> Floats:
        """Return what queries attend to, (T, H*D)."""

    def derivatives(self, qkv: Floats, lengths: Sequence[int], by_output: Floats) -> Floats:
        """Return derivatives by ``qkv``, of those by what ``attended`` returned."""


class _KernelHeads:
    """All sequences and heads in one call of the kernels."""

    def __init__(self, heads: _Heads, engine: KernelEngine) -> None:
        self._heads, self._engine = heads, engine
        # (L, R): of as many positions as a sequence had so far
        self._table: Floats = np.empty((0, heads.rotary_dim), np.float32)

    def attended(self, qkv: Floats, lengths: Sequence[int]) -> Floats:
        output = np.empty((len(qkv), self._heads.count * self._heads.head_dim), np.float32)
        rotated, angles, places = np.empty_like(qkv), self._angles(lengths), _places(lengths)
        steps = [
            self._rotate("there", qkv, rotated, angles),
            self._attend("causal", places, qkv=rotated, out=output),
        ]
        self._run(steps, lengths, backward=False)
        return output

    def derivatives(self, qkv: Floats, lengths: Sequence[int], by_output: Floats) -> Floats:
        rotated, angles, places = np.empty_like(qkv), self._angles(lengths), _places(lengths)
        by_qkv = np.empty_like(qkv)
        steps = [
            self._rotate("there", qkv, rotated, angles),
            self._attend("causal_backward", places, qkv=rotated, out=by_output, by_qkv=by_qkv),
            self._rotate("back", by_qkv, by_qkv, angles),
        ]
        self._run(steps, lengths, backward=True)
        return by_qkv

    def _run(self, steps: Sequence[Step], lengths: Sequence[int], *, backward: bool) -> None:
        engine, longest = self._engine, max(lengths)
        nbytes = causal_scratch(longest, self._heads.head_dim, engine.isa.lanes, backward=backward)
        with engine.lock:
            engine.reserve_scratch(nbytes)
            engine.run(step_array(steps), sum(lengths))

    def _angles(self, lengths: Sequence[int]) -> Floats:
        """Return cosines and sines of each row's position in its sequence, (T, R)."""
        if len(self._table) < max(lengths):
            self._table = np.hstack(self._heads.cosines_and_sines(max(lengths)))
        return np.concatenate([self._table[:length] for length in lengths])

    def _rotate(self, direction: str, source: Floats, target: Floats, angles: Floats) -> Step:
        heads = self._heads
        return make_step(
            self._engine.kernel("rotate", direction),
            ROTATE,
            source=source.ctypes.data,
            target=target.ctypes.data,
            cos_sin=angles.ctypes.data,
            heads=heads.count + 2 * heads.kv_count,
            rotated=heads.count + heads.kv_count,
            head_dim=heads.head_dim,
            rotary_dim=heads.rotary_dim,
        )

    def _attend(self, kernel: str, places: Places, **rows: Floats) -> Step:
        heads = self._heads
        return make_step(
            self._engine.kernel(kernel, heads.head_dim),
            CAUSAL,
            sequences=places.ctypes.data,
            count=len(places),
            heads=heads.count,
            kv_heads=heads.kv_count,
            scale=float32_bits(heads.scale),
            **{name: own.ctypes.data for name, own in rows.items()},
        )


def _places(lengths: Sequence[int]) -> Places:
    """Return the first row of each sequence and its rows, (N, 2)."""
    ends = np.cumsum(lengths)
    return np.stack([ends - lengths, lengths], axis=1).astype(np.int64)


class _NumpyHeads:
    """Sequence by sequence in NumPy."""

    def __init__(self, heads: _Heads, cap: float | None) -> None:
        self._heads, self._cap = heads, cap

    def attended(self, qkv: Floats, lengths: Sequence[int]) -> Floats:
        output = np.empty((len(qkv), self._heads.count * self._heads.head_dim), np.float32)
        for rows, q, k, v in self._sequences(qkv, lengths):
            found = attended(q, k, v, self._scores(q))
            _by_token(output[rows], found)[:] = found
        return output

    def derivatives(self, qkv: Floats, lengths: Sequence[int], by_output: Floats) -> Floats:
        by_qkv = np.empty_like(qkv)
        for rows, q, k, v in self._sequences(qkv, lengths):
            own = np.ascontiguousarray(_by_token(by_output[rows], q))
            parts = attended_derivatives(q, k, v, own, scores=self._scores(q))
            by_q, by_k, by_v = parts
            self._rotate(by_q, back=True)
            self._rotate(by_k, back=True)
            begin = 0
            for part in (by_q, by_k, by_v):
                end = begin + len(part) * self._heads.head_dim
                _by_token(by_qkv[rows, begin:end], part)[:] = part
                begin = end
        return by_qkv

    def _sequences(
        self, qkv: Floats, lengths: Sequence[int]
    ) -> Iterator[tuple[slice, Floats, Floats, Floats]]:
        """Yield the rows of each sequence, its rotated queries and keys, and values (N, L, D)."""
        queries = self._heads.count
        first_value = queries + self._heads.kv_count
        begin = 0
        for length in lengths:
            rows = slice(begin, begin + length)
            # (L, (H + 2G)*D) -> (H + 2G, L, D)
            split = qkv[rows].reshape(length, -1, self._heads.head_dim)
            heads = np.ascontiguousarray(split.swapaxes(0, 1))
            self._rotate(heads[:first_value])
            yield rows, heads[:queries], heads[queries:first_value], heads[first_value:]
            begin += length

    def _rotate(self, heads: Floats, *, back: bool = False) -> None:
        """Turn heads (N, L, D) by their position, in place; or back again."""
        half = self._heads.rotary_dim // 2
        cosines, sines = self._heads.cosines_and_sines(heads.shape[1])
        if back:
            np.negative(sines, out=sines)
        first, second = heads[..., :half], heads[..., half : 2 * half]
        turned = first * cosines
        turned -= second * sines
        second *= cosines
        second += first * sines
        first[:] = turned

    def _scores(self, queries: Floats) -> Scores:
        return Scores.of_causal(queries.shape[1], self._heads.scale, self._cap)


def _by_token(rows: Floats, heads: Floats) -> Floats:
    """Return rows (L, N*D) as heads lie (N, L, D), without a copy."""
    return rows.reshape(len(rows), *heads.shape[::2]).swapaxes(0, 1)

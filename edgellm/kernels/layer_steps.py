"""A decoder layer as steps: norm, products, rotary positions, attention, gate, residuals."""

# L new tokens, E hidden, H query heads, G key/value heads, D head size, F inner

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.kernels.codegen.abi import (
    GROUP_BYTES,
    SPLIT_ROWS,
    STEP_TOKENS,
    WHOLE,
    attention_scratch,
    share_of,
)
from edgellm.kernels.engine import Engine, Step, float_bits, table
from edgellm.kernels.product_steps import Matrix, product_steps

_TURN = 64
"""Keys to look at that are as much work as a token's rotary positions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A decoder layer's numbers."""

    hidden: int
    inner: int
    heads: int
    kept_heads: int
    head_dim: int
    eps: float


@dataclass(frozen=True, slots=True)
class Vector:
    """A norm's weight by address, and the kind of its numbers."""

    address: int
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """A decoder layer's weights; each product is one matrix or several side by side."""

    input_norm: Vector
    qkv: Sequence[Matrix]
    output: Sequence[Matrix]
    inner_norm: Vector
    gate_up: Sequence[Matrix]
    down: Sequence[Matrix]
    query_norm: Vector | None = None
    key_norm: Vector | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Where a layer's keys and values are and what of them is looked at.

    Attributes:
        kept: ``f32``, ``f16``, ``q8`` or ``q4`` (``kernels.kept``).
        keys: address of (G, capacity, D), less what would lie before it if its first place were
            position 0.
        values: likewise.
        head_bytes: from one head to the next.
        position: of the first new token.
        held: the position after the last new token.
        window: keys that a query looks back over, its own among them.
        exponent: the largest of a share (``layout.share_of``).
        tables: of packed ones, addresses of the keys' scales and biases, and of the values'.
    """

    kept: str
    keys: int
    values: int
    head_bytes: int
    position: int
    held: int
    window: int
    exponent: int = WHOLE
    tables: tuple[int, int, int, int] = (0, 0, 0, 0)

    def shares(self, length: int) -> tuple[int, int, int]:
        """Shares that ``length`` queries' keys lie in, the first of them, and the least exponent; many queries need no more."""
        if length > SPLIT_ROWS:
            return 1, 8 * WHOLE, WHOLE
        first = share_of(max(0, self.position + 1 - self.window), self.exponent)
        return share_of(self.held - 1, self.exponent) + 1 - first, first, 0


class LayerSteps:
    """One layer's steps for up to ``tokens`` tokens, which read and write the engine's buffer ``hidden`` (L, E).

    The tokens may be of several sequences, side by side: products, norms and the gate see all of
    them at once, rotary positions and attention (three steps) go sequence by sequence: one after
    the other, each by all threads; or, where that keeps all threads busy, side by side, each by one
    thread.
    """

    def __init__(self, engine: Engine, shape: Shape, weights: LayerWeights, *, tokens: int) -> None:
        self._engine, self._shape, self._weights, self.tokens = engine, shape, weights, tokens
        self._version = -1
        self._rotary = 0
        self._rows: dict[tuple[int, bool], tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = {}
        self._by_kind: dict[str, tuple[int, int]] = {}

    def rows(self, spans: Sequence[tuple[Store, int]]) -> npt.NDArray[np.int64]:
        """The steps of a call; the caller holds the engine's lock.

        Args:
            spans: of each sequence, in the order of its tokens: where its keys and values are, and
                how many tokens it has.
        """
        memory = self._engine.memory
        heads, width = self._shape.heads, self._shape.head_dim
        shares = [store.shares(length) for store, length in spans]
        most = [
            -(-splits // 8) * 8 * length if splits > 1 else length
            for (splits, _, _), (_, length) in zip(shares, spans, strict=True)
        ]
        memory.reserved("shares", 4 * sum(most) * heads * (width + 2))
        memory.reserved("groups", GROUP_BYTES * len(spans))
        work = [length * (_TURN + min(store.held, store.window)) for store, length in spans]
        apart = len(spans) > 1 and self._engine.threads * max(work) <= sum(work)
        # making steps can move memory that earlier steps were made with
        while self._version != memory.version:
            self._version = memory.version
            rows = table(self._steps())
            self._rows = {(1, False): (rows, rows[self._rotary : self._rotary + 3])}
        if (len(spans), apart) not in self._rows:
            self._rows[len(spans), apart] = self._repeated(len(spans), apart=apart)
        rows, found = self._rows[len(spans), apart]
        one = self._rows[1, False][1]
        qkv, turned, row_bytes, part, seen = (
            int(place) for place in (*one[0, 1:3], *one[1, 2:4], one[2, 2])
        )
        first = 0
        for number, (store, length) in enumerate(spans):
            at = 3 * number
            splits, share, least = shares[number]
            ends = (store.keys, store.values, store.head_bytes)
            found[at, 0], found[at + 1, 0] = self._kernels(store.kept)
            found[at, 6:10], found[at, 13:17] = (*ends, store.position), store.tables
            found[at + 1, 7:13] = (*ends, store.held, store.window, splits)
            found[at + 1, 14:21] = (share, least, max(least, store.exponent), *store.tables)
            found[at + 2, 5] = splits
            if len(spans) > 1:
                queries = qkv + first * row_bytes
                found[at, 1:3] = (queries, turned + 4 * first * width)
                found[at + 1, [1, 3]] = (queries, part)
                found[at + 2, 1:3] = (part, seen + 4 * first * heads * width)
                found[at : at + 3, STEP_TOKENS] = length
            first += length
            part += 4 * most[number] * heads * (width + 2)
        return rows

    def _kernels(self, kept: str) -> tuple[int, int]:
        """Rotary positions and attention for a kind of cache."""
        found = self._by_kind.get(kept)
        if found is None:
            weights, engine = self._weights, self._engine
            kind = "plain" if weights.query_norm is None else weights.query_norm.kind
            found = self._by_kind[kept] = (
                engine.kernel("rotary", kind, kept),
                engine.kernel("attention", kept),
            )
        return found

    def _repeated(
        self, count: int, *, apart: bool
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The steps for ``count`` sequences, and those of them between the products, three each."""
        rows, begin, end = self._rows[1, False][0], self._rotary, self._rotary + 3
        steps = np.tile(rows[begin:end], (count, 1))
        if not apart:
            together = np.concatenate([rows[:begin], steps, rows[end:]])
            return together, together[begin : begin + 3 * count]
        groups = self._engine.memory.reserved("groups", GROUP_BYTES * count)
        one = table([(self._engine.kernel("apart"), steps.ctypes.data, count, 3, groups)])
        return np.concatenate([rows[:begin], one, rows[end:]]), steps

    def _steps(self) -> list[Step]:
        engine, shape, weights, tokens = self._engine, self._shape, self._weights, self.tokens
        heads, kept, width = shape.heads, shape.kept_heads, shape.head_dim
        row = (heads + 2 * kept) * width
        engine.reserve_scratch(attention_scratch(engine.isa.lanes, width))
        hidden, normed, qkv, shares, seen, both, gated, turned = (
            engine.memory.reserved(name, 4 * tokens * size)
            for name, size in (
                ("hidden", shape.hidden),
                ("normed", shape.hidden),
                ("qkv", row),
                ("shares", heads * (width + 2)),
                ("seen", heads * width),
                ("gate and up", 2 * shape.inner),
                ("gated", shape.inner),
                ("turns", width),
            )
        )
        eps = float_bits(shape.eps)
        norms = (0, 0)
        if weights.query_norm is not None and weights.key_norm is not None:
            norms = (weights.query_norm.address, weights.key_norm.address)

        def norm(weight: Vector) -> Step:
            return (
                engine.kernel("norm", weight.kind),
                hidden,
                weight.address,
                normed,
                shape.hidden,
                eps,
            )

        def product(
            matrices: Sequence[Matrix], x: int, out: int, *, add: bool = False
        ) -> list[Step]:
            return product_steps(engine, matrices, x, out, tokens=tokens, add=add)

        rotary = (0, qkv, turned, heads, kept, width, 0, 0, 0, 0, *norms, eps)
        scale = float_bits(width**-0.5)
        first = [norm(weights.input_norm), *product(weights.qkv, normed, qkv)]
        self._rotary = len(first)
        return [
            *first,
            rotary,
            (0, qkv, 4 * row, shares, heads, kept, width, 0, 0, 0, 0, 0, 0, scale),
            (engine.kernel("merge"), shares, seen, heads, width, 0),
            *product(weights.output, seen, hidden, add=True),
            norm(weights.inner_norm),
            *product(weights.gate_up, normed, both),
            (engine.kernel("swiglu"), both, gated, shape.inner),
            *product(weights.down, gated, hidden, add=True),
        ]


def turns(wavelengths: npt.NDArray[np.float32], start: int, tokens: int) -> npt.NDArray[np.float32]:
    """Cosines, then sines, of each position's angles: (L, D)."""
    # as MLX rounds it
    angles = np.arange(start, start + tokens, dtype=np.float32)[:, None] * (1 / wavelengths)[None]
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)

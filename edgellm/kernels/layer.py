"""A decoder layer as steps: norm, products, rotary positions, attention, gate, residuals."""

# L new tokens, E hidden, H query heads, G key/value heads, D head size, F inner

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.kernels.engine import Engine, Step, float_bits, table
from edgellm.kernels.layout import SHARE, attention_scratch
from edgellm.kernels.product import Matrix, product_steps


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
        keys: address of (G, capacity, D) float32.
        values: likewise.
        head_bytes: from one head to the next.
        place: of the first new token.
        held: keys to look at, up to the last new token's.
        window: keys that a query looks back over, its own among them.
    """

    keys: int
    values: int
    head_bytes: int
    place: int
    held: int
    window: int


class LayerSteps:
    """One layer's steps for up to ``tokens`` tokens, which read and write the engine's buffer ``hidden`` (L, E)."""

    def __init__(self, engine: Engine, shape: Shape, weights: LayerWeights, *, tokens: int) -> None:
        self._engine, self._shape, self._weights, self.tokens = engine, shape, weights, tokens
        self._version = -1
        self._rotary = self._attention = 0
        self._splits = 2 * engine.threads if tokens <= engine.few else 1
        self._rows = table([])

    def rows(self, store: Store) -> npt.NDArray[np.int64]:
        """The steps, for a call with its keys and values in ``store``. The caller holds the engine's lock."""
        memory = self._engine.memory
        while self._version != memory.version:  # making steps can move memory that earlier steps were made with
            self._version = memory.version
            self._rows = table(self._steps())
        ends = (store.keys, store.values, store.head_bytes)
        self._rows[self._rotary, 6:10] = (*ends, store.place)
        splits = max(1, min(self._splits, min(store.held, store.window) // SHARE))
        self._rows[self._attention, 7:13] = (*ends, store.held, store.window, splits)
        self._rows[self._attention + 1, 5] = splits
        return self._rows

    def _steps(self) -> list[Step]:
        engine, shape, weights, tokens = self._engine, self._shape, self._weights, self.tokens
        heads, kept, width = shape.heads, shape.kept_heads, shape.head_dim
        row = (heads + 2 * kept) * width
        splits = self._splits
        engine.reserve_scratch(attention_scratch(engine.isa.lanes, width))
        hidden, normed, qkv, shares, seen, both, gated, turned = (
            engine.memory.reserved(name, 4 * tokens * size)
            for name, size in (
                ("hidden", shape.hidden),
                ("normed", shape.hidden),
                ("qkv", row),
                ("shares", heads * splits * (width + 2)),
                ("seen", heads * width),
                ("gate and up", 2 * shape.inner),
                ("gated", shape.inner),
                ("turns", width),
            )
        )
        eps = float_bits(shape.eps)
        kind, norms = "plain", (0, 0)
        if weights.query_norm is not None and weights.key_norm is not None:
            kind, norms = weights.query_norm.kind, (weights.query_norm.address, weights.key_norm.address)

        def norm(weight: Vector) -> Step:
            return (engine.kernel("norm", weight.kind), hidden, weight.address, normed, shape.hidden, eps)

        def product(matrices: Sequence[Matrix], x: int, out: int, *, add: bool = False) -> list[Step]:
            return product_steps(engine, matrices, x, out, tokens=tokens, add=add)

        rotary = (engine.kernel("rotary", kind), qkv, turned, heads, kept, width, 0, 0, 0, 0, *norms, eps)
        scale = float_bits(width**-0.5)
        attend, merge = engine.kernel("attention"), engine.kernel("merge")
        first = [norm(weights.input_norm), *product(weights.qkv, normed, qkv)]
        self._rotary, self._attention = len(first), len(first) + 1
        return [
            *first,
            rotary,
            (attend, qkv, 4 * row, shares, heads, kept, width, 0, 0, 0, 0, 0, splits, scale),
            (merge, shares, seen, heads, width, splits),
            *product(weights.output, seen, hidden, add=True),
            norm(weights.inner_norm),
            *product(weights.gate_up, normed, both),
            (engine.kernel("swiglu"), both, gated, shape.inner),
            *product(weights.down, gated, hidden, add=True),
        ]


def turns(wavelengths: npt.NDArray[np.float32], start: int, tokens: int) -> npt.NDArray[np.float32]:
    """Cosines, then sines, of each position's angles: (L, D)."""
    angles = np.arange(start, start + tokens, dtype=np.float32)[:, None] * (1 / wavelengths)[None]  # as MLX rounds it
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)

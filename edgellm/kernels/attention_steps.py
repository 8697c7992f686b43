"""Which kernel attends for few tokens and for many, and what its threads take at once."""

# L new tokens, D head size

from __future__ import annotations

from edgellm.kernels.attention.scratch import (
    attention_scratch,
    tile_attention_rows,
    tile_attention_scratch,
)
from edgellm.kernels.codegen.abi import TILE_NUMBERS
from edgellm.kernels.kernel_engine import KernelEngine
from edgellm.kernels.layer import LayerShape


def kernels(engine: KernelEngine, kind: str, head_dim: int) -> tuple[int, int]:
    """Return the kernels for a kind of cache, for few tokens and for many."""
    few = many = engine.kernel("attention", kind, head_dim)
    if _in_tiles(engine, head_dim):
        many = engine.kernel("tile_attention", kind, head_dim)
    return few, many


def item_sizes(
    engine: KernelEngine, shape: LayerShape, tokens: int, splits: int
) -> tuple[int, int]:
    """Return the splits, and of many tokens the queries, that a thread takes at once.

    A run of splits is one stretch of memory, but every thread gets eight runs.
    """
    rows = tokens * shape.heads // shape.kv_heads
    return (
        max(1, splits * shape.kv_heads // (8 * engine.threads)),
        tile_attention_rows(rows, shape.kv_heads, engine.threads, shape.head_dim),
    )


def reserve_scratch(engine: KernelEngine, head_dim: int, *, tokens: int) -> None:
    """Give each thread the memory that it needs for up to this many tokens."""
    engine.reserve_scratch(attention_scratch(engine.isa.lanes, head_dim))
    if tokens > engine.max_exact_rows and _in_tiles(engine, head_dim):
        engine.reserve_scratch(tile_attention_scratch(head_dim))


def _in_tiles(engine: KernelEngine, head_dim: int) -> bool:
    """Return whether many queries are multiplied in tiles of bfloat16."""
    rounded = engine.activations == "int8"
    return rounded and engine.isa.tiles and head_dim % TILE_NUMBERS == 0

"""The memory that a thread of attention works in, and how many rows it takes at once."""

# D head size; a row is one query

from __future__ import annotations

from collections.abc import Mapping

from edgellm.kernels.codegen.abi import KEY_BLOCK, QUERY_ROWS, TILE, padded_features

TILE_ROWS = 32
"""Queries that attention in tiles multiplies at once."""

PHASE_TILES = 8
"""Times so many queries are scored, then weighed, then mixed by a thread."""

TILE_SCORE_BYTES = 4 * KEY_BLOCK + 64
"""From row to row of scores in tiles: a power of two would share few sets of the cache."""

_TILE_RESULTS = 1 << 16
"""Numbers of a thread's results in tiles: with the queries, a part of the second-level cache."""


def attention_parts(lanes: int, head_dim: int) -> Mapping[str, int]:
    """Return the parts of a thread's scratch for attention, in bytes.

    Those of ``RowState`` in ``online_softmax.py``, then keys that were turned, and a block of keys
    and one of values that were quantized.
    """
    block = 4 * KEY_BLOCK * padded_features(head_dim)
    return {
        "queries": 4 * QUERY_ROWS * head_dim,
        "results": 4 * QUERY_ROWS * head_dim,
        "scores": 4 * QUERY_ROWS * KEY_BLOCK,
        "totals": 4 * QUERY_ROWS * lanes,
        "largest": 4 * QUERY_ROWS,
        "fades": 4 * QUERY_ROWS,
        "begins": 4 * QUERY_ROWS,
        "ends": 4 * QUERY_ROWS,
        "columns": 4 * head_dim * 2 * lanes,
        "edge": 4 * padded_features(head_dim) * lanes,
        "keys": block,
        "values": block,
    }


def attention_scratch(lanes: int, head_dim: int) -> int:
    """Return the scratch bytes that a thread of attention needs."""
    return sum(attention_parts(lanes, head_dim).values())


def tile_attention_parts(head_dim: int) -> Mapping[str, int]:
    """Return the parts of a thread's scratch for attention in tiles, in bytes.

    Those of ``TileRows`` in ``tile_softmax.py``, then a block's tiles, and a block that was
    quantized.
    """
    rows = _most_tile_rows(head_dim)
    block = KEY_BLOCK * head_dim
    return {
        "queries": 2 * rows * head_dim,
        "results": 4 * rows * head_dim,
        "totals": 4 * rows * TILE,
        "largest": 4 * rows,
        "begins": 4 * rows,
        "ends": 4 * rows,
        "scores": PHASE_TILES * TILE_ROWS * TILE_SCORE_BYTES,
        "weights": PHASE_TILES * 2 * TILE_ROWS * KEY_BLOCK,
        "highest": 4 * TILE_ROWS,
        "keys": 2 * block,
        "values": 2 * block,
        "unpacked keys": 4 * block,
        "unpacked values": 4 * block,
    }


def tile_attention_scratch(head_dim: int) -> int:
    """Return the scratch bytes that a thread of attention in tiles needs."""
    return sum(tile_attention_parts(head_dim).values())


def tile_attention_rows(rows: int, kv_heads: int, threads: int, head_dim: int) -> int:
    """Return the rows of a key head that a thread takes at once.

    As many as fit, since a block's tiles are made once for all of them, but every thread gets
    eight times some.
    """
    wanted = -(-rows * kv_heads // (8 * threads) // TILE_ROWS) * TILE_ROWS
    return max(TILE_ROWS, min(wanted, _most_tile_rows(head_dim)))


def _most_tile_rows(head_dim: int) -> int:
    return max(1, _TILE_RESULTS // head_dim // TILE_ROWS) * TILE_ROWS

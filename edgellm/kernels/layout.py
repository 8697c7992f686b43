"""Where numbers lie that Python and the kernels share: a step's arguments, a call's, and the pool's state. All in bytes."""

from __future__ import annotations

from collections.abc import Mapping

STEP_SLOTS = 16
STEP_BYTES = 8 * STEP_SLOTS
"""One step: the kernel's address, then its arguments, eight bytes each."""

POOL: Mapping[str, int] = {
    "generation": 0,
    "arrived": 64,
    "phase": 128,
    "next_item": 192,
    "job": 256,
    "stop": 320,
    "sleepers": 384,
    "workers": 392,
    "mutex": 448,
    "condition": 512,
}
"""What each thread writes alone has a cache line of its own; ``job`` is steps, their count, the call and the threads."""

POOL_BYTES = 640

CALL: Mapping[str, int] = {"tokens": 0, "scratch": 1, "scratch_bytes": 2}
"""What all steps of a call share, by slot: tokens, and the memory that each thread has for itself."""

CALL_SLOTS = 4

VECTORS = 2
"""Vectors of tokens that a product of many tokens sums side by side."""

KEY_BLOCK = 128
"""Keys whose scores attention holds at once."""

SHARE = 128
"""Keys that are worth a share of their own, where heads alone do not keep all threads busy."""

_BLOCK_ROWS = 96
_PANEL_BYTES = 1 << 20
"""Rows of a weight, and bytes, that are unpacked at once at the most: half of a core's second-level cache, or less."""


def item_rows(rows: int, threads: int) -> int:
    """Rows of a weight that a thread takes at once, few tokens: long runs of memory, but enough of them to go round."""
    return max(32, min(512, rows // (8 * threads) // 32 * 32))


def block_rows(row_bytes: int) -> int:
    """Rows of a weight that are unpacked at once, a multiple of 32."""
    return max(32, min(_BLOCK_ROWS, _PANEL_BYTES // row_bytes // 32 * 32))


def matmul_scratch(lanes: int, rows: int, row_bytes: int, groups: int) -> int:
    """Bytes that a thread needs for a block: results, a square to turn them in, the panel, float32 scales and biases."""
    return 4 * rows * VECTORS * lanes + 4 * lanes**2 + rows * row_bytes + 8 * rows * groups


def attention_scratch(lanes: int, head_dim: int) -> int:
    """Bytes that a thread needs: queries and results (D, lanes), scores (KEY_BLOCK, lanes)."""
    return (2 * head_dim + KEY_BLOCK) * lanes * 4

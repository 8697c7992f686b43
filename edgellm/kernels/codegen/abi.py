"""Where numbers lie that Python and the kernels share: a step's arguments, a call's, and the pool's state. All in bytes."""

from __future__ import annotations

from collections.abc import Mapping

STEP_SLOTS = 24
STEP_BYTES = 8 * STEP_SLOTS
"""One step: the kernel's address, then its arguments, eight bytes each."""

STEP_TOKENS = STEP_SLOTS - 1
"""The slot of a step's own number of tokens, where it is about one sequence of a call; 0: about all of the call's."""

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
    "waiters": 576,
    "passed": 640,
}
"""What each thread writes alone has a cache line of its own; ``job`` is steps, their count, the call and the threads."""

POOL_BYTES = 704

GROUP_BYTES = 256
"""What stands in for the pool where one thread does a group of steps alone: its ``next_item``."""

CALL: Mapping[str, int] = {"tokens": 0, "scratch": 1, "scratch_bytes": 2}
"""What all steps of a call share, by slot: tokens, and the memory that each thread has for itself."""

CALL_SLOTS = 4

VECTORS = 2
"""Vectors of tokens that a product of many tokens sums side by side."""

SOME = 4
"""Up to so many tokens, but more than one, multiply a weight as it lies also where there are tiles."""

FEW = 16
"""Up to so many tokens each is multiplied with a weight as it lies, and gets what it would get alone."""

MANY = 512
"""Tokens that go through a layer at once, which bounds working memory."""

TILE = 16
"""Rows of a tile (AMX), and 32-bit numbers in each."""

TILE_TURNS = 4
"""Groups that are under way at once in a product of few tokens in tiles."""

TILE_PARTS: Mapping[str, int] = {
    "codes": 2048 * TILE_TURNS,
    "ints": 1024 * TILE_TURNS,
    "sums": 8192,
    "results": 1024,
}
"""Bytes of a thread's memory for such a product: the groups' codes and integers, sums, results."""

KEY_BLOCK = 128
"""Keys whose scores attention holds at once."""

SHARE = 128
"""Keys that are worth a share of their own, where heads alone do not keep all threads busy; a multiple of KEY_BLOCK."""

SPLIT_ROWS = 16
"""Queries of one sequence whose keys are split into shares; more of them keep all threads busy without."""

WHOLE = 40
"""The exponent of a share that holds every key."""

GROUP = 32
"""Features of a packed key or value that share scale and bias."""

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


def tile_scratch(groups: int) -> int:
    """Bytes that a thread needs: the parts, then float32 scales and biases of 16 rows (whole blocks of 8 groups)."""
    return sum(TILE_PARTS.values()) + 2 * 4 * TILE * -(-groups // 8) * 8


def attention_scratch(lanes: int, head_dim: int) -> int:
    """Bytes that a thread needs: queries and results (D, lanes), scores (KEY_BLOCK, lanes), a block of keys and values."""
    padded = -(-head_dim // GROUP) * GROUP
    return ((2 * head_dim + KEY_BLOCK) * lanes + 2 * KEY_BLOCK * padded) * 4


def share_of(position: int, largest: int) -> int:
    """The share that a position lies in: eight of SHARE keys, then of each doubling eight, up to SHARE << ``largest`` keys.

    It depends on nothing but the position, so that a query's sums do not depend on how many rows
    its call has.
    """
    exponent = min(max((position // SHARE).bit_length() - 4, 0), largest)
    return 8 * exponent + position // (SHARE << exponent)

"""Strips of a weight that are multiplied with many tokens in tiles, and their scratch."""

from __future__ import annotations

from edgellm.kernels.codegen.abi import TILE, TOKEN_VECTORS

STRIP_ROWS = 32
STRIP_COLUMNS = 256
STRIP_BYTES = 2 * STRIP_ROWS * STRIP_COLUMNS
"""Rows and columns of a weight that are multiplied with all tokens at once, and their bytes.

A strip stays in the first-level cache while the tokens pass.
"""

STRIP_BLOCK_ROWS = 256
"""Rows of a weight whose results a thread holds at once, half a megabyte for 512 tokens."""


def strip_scratch(tokens: int) -> int:
    """Return the scratch bytes that a thread of such a product needs."""
    pairs = -(-tokens // (TOKEN_VECTORS * TILE))
    results = 4 * STRIP_BLOCK_ROWS * pairs * TOKEN_VECTORS * TILE
    turned = 4 * STRIP_BLOCK_ROWS * TILE
    return 2 * STRIP_BYTES + turned + results

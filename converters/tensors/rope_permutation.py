"""The two orders in which a head's rows are stored.

Meta rotates neighbours, rows (2i, 2i + 1); Hugging Face rotates halves, rows (i, i + D/2). The rows
are the same.
"""

from __future__ import annotations

import numpy as np

from edgellm.converters.tensors.source import Bytes, ReadRows


def halves_from_pairs(read: ReadRows, head_dim: int, start: int, stop: int) -> Bytes:
    """Read rows in Hugging Face's order of a matrix, or a bias, that is stored in Meta's.

    Args:
        read: gives the bytes of stored rows, from one to another; heads are read whole.
        head_dim: rows of a head.
        start: the first row.
        stop: the row behind the last.
    """
    first, last = start // head_dim, -(-stop // head_dim)
    stored = read(first * head_dim, last * head_dim)
    pairs = stored.reshape(last - first, head_dim // 2, 2, -1)
    halves = np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape((last - first) * head_dim, -1)
    return halves[start - first * head_dim : stop - first * head_dim].reshape(-1)


def pairs_from_halves(read: ReadRows, head_dim: int, start: int, stop: int) -> Bytes:
    """Read rows in Meta's order of a matrix stored in Hugging Face's, as ``halves_from_pairs``."""
    first, last = start // head_dim, -(-stop // head_dim)
    halves = read(first * head_dim, last * head_dim).reshape(last - first, 2, head_dim // 2, -1)
    pairs = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape((last - first) * head_dim, -1)
    return pairs[start - first * head_dim : stop - first * head_dim].reshape(-1)

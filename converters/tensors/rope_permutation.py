"""The two orders in which a head's rows are stored.

Meta rotates neighbours, rows (2i, 2i + 1); Hugging Face rotates halves, rows (i, i + D/2). The rows
are the same.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edgellm.converters.tensors.source import Bytes, ReadRows

Item = TypeVar("Item", bound=np.generic)


def halves_from_pairs(read: ReadRows, head_dim: int, start: int, stop: int) -> Bytes:
    """Read rows in Hugging Face's order of a matrix, or a bias, that is stored in Meta's.

    Args:
        read: gives the bytes of stored rows, from one to another; heads are read whole.
        head_dim: rows of a head.
        start: the first row.
        stop: the row behind the last.
    """
    first, last = start // head_dim, -(-stop // head_dim)
    pairs = read(first * head_dim, last * head_dim).reshape((last - first) * head_dim, -1)
    halves = in_halves(pairs, head_dim)
    return halves[start - first * head_dim : stop - first * head_dim].reshape(-1)


def pairs_from_halves(read: ReadRows, head_dim: int, start: int, stop: int) -> Bytes:
    """Read rows in Meta's order of a matrix stored in Hugging Face's, as ``halves_from_pairs``."""
    first, last = start // head_dim, -(-stop // head_dim)
    halves = read(first * head_dim, last * head_dim).reshape((last - first) * head_dim, -1)
    pairs = in_pairs(halves, head_dim)
    return pairs[start - first * head_dim : stop - first * head_dim].reshape(-1)


def in_halves(rows: npt.NDArray[Item], head_dim: int) -> npt.NDArray[Item]:
    """Return the rows (R, ...) of whole heads in Hugging Face's order, from Meta's."""
    pairs = rows.reshape(-1, head_dim // 2, 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)


def in_pairs(rows: npt.NDArray[Item], head_dim: int) -> npt.NDArray[Item]:
    """Return the rows (R, ...) of whole heads in Meta's order, from Hugging Face's."""
    halves = rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)

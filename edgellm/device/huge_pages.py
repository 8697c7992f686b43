"""Memory in huge pages, where Linux gives them on request: weights are then read without a page's end every 4 KB."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

SIZE = 2 << 20
"""Bytes of a huge page on x86 and most ARM systems; others give a larger one at such a border, or none."""

_HUGE, _FORGET = (getattr(mmap, name, None) for name in ("MADV_HUGEPAGE", "MADV_DONTNEED"))


def in_huge_pages(zeros: npt.NDArray[np.uint8]) -> int:
    """Put zeroed memory that belongs to one array alone into huge pages; returns how many bytes of it.

    Only whole huge pages inside the array change, so it takes no more memory than before. Their
    small pages are given back, and the next writes find huge ones. A system that refuses leaves
    everything as it was.
    """
    begin = int(zeros.ctypes.data)
    start = -(-begin // SIZE) * SIZE
    nbytes = (begin + zeros.nbytes - start) // SIZE * SIZE
    if _HUGE is None or _FORGET is None or nbytes <= 0:
        return 0
    libc: Any = ctypes.CDLL(None, use_errno=True)
    where = ctypes.c_void_p(start), ctypes.c_size_t(nbytes)
    if libc.madvise(*where, _HUGE) != 0 or libc.madvise(*where, _FORGET) != 0:
        return 0
    return nbytes

"""Huge pages, where Linux gives them on request: fewer TLB misses while weights are read."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

SIZE = 2 << 20
"""Bytes of a huge page on x86 and most ARM systems; others give a larger one there, or none."""

# None where the system has no such advice (macOS).
_MADV_HUGEPAGE = getattr(mmap, "MADV_HUGEPAGE", None)
_MADV_DONTNEED = getattr(mmap, "MADV_DONTNEED", None)


def in_huge_pages(zeros: npt.NDArray[np.uint8]) -> int:
    """Put zeroed memory that belongs to one array alone into huge pages; return bytes moved.

    Only whole huge pages inside the array change, so it takes no more memory than before. Their
    small pages are given back, and the next writes find huge ones. A system that refuses leaves
    everything as it was.
    """
    begin = int(zeros.ctypes.data)
    start = -(-begin // SIZE) * SIZE  # rounded up to a border of huge pages
    nbytes = (begin + zeros.nbytes - start) // SIZE * SIZE
    if _MADV_HUGEPAGE is None or _MADV_DONTNEED is None or nbytes <= 0:
        return 0
    libc: Any = ctypes.CDLL(None, use_errno=True)
    # DONTNEED drops the small pages: zeros again when they are next touched, as they were.
    for advice in (_MADV_HUGEPAGE, _MADV_DONTNEED):
        if libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(nbytes), advice) != 0:
            return 0
    return nbytes

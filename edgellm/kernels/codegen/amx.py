"""The kernel's permission for AMX tiles, which Linux gives a process on request."""

from __future__ import annotations

import ctypes
import platform
from functools import cache

_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18


@cache
def tiles_allowed() -> bool:
    """Whether this process may use tiles; threads that it starts afterwards may, too."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA) == 0)

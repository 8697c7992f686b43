"""Where a measurement was taken: stamped on every record."""

from __future__ import annotations

import platform
import time
from importlib import metadata
from typing import Any

from edgellm import device

PACKAGES = ("edgellm", "mlx", "numpy", "llvmlite")


def environment() -> dict[str, Any]:
    """The machine, its memory, the versions, and the time."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "system": platform.platform(),
        "machine": platform.machine(),
        "chip": device.chip_name(),
        "cores": device.core_count(),
        "memory_bytes": device.read_memory().total,
        "arithmetic": device.backend_name(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None

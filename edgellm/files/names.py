"""Names of files beside another one: a partial file, a lock."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

PARTIAL_SUFFIX = ".edgellm.partial"
"""Of a file that is being written: no file of anybody else's has such a name by accident."""

LOCK_SUFFIX = ".edgellm.lock"
"""Of a file that is held while its neighbour is being made."""

LONGEST_NAME = 143
"""Bytes of a name that every filesystem takes; most take 255, an encrypted one (eCryptfs) 143."""

SPARE_BYTES = 40
"""Of ``LONGEST_NAME``, for what is put behind a shortened name."""


def shortened(name: str) -> str:
    """Return a name with room behind it for 40 bytes; a long one is cut, and given its digest."""
    data = os.fsencode(name)
    limit = LONGEST_NAME - SPARE_BYTES
    if len(data) <= limit:
        return name
    digest = hashlib.sha256(data).hexdigest()[:16]
    # macOS takes no half characters
    return data[: limit - 17].decode("utf-8", "ignore") + "-" + digest


def beside(path: Path, suffix: str) -> Path:
    """Return the path of a file that belongs to another: its name with a suffix of ours."""
    return path.with_name(shortened(path.name) + suffix)

"""Bytes of a file by their place, and a text that tells whether files have changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from edgellm.converters.tensors.source import Bytes
from edgellm.errors import ReadError


def read_span(path: Path, offset: int, length: int) -> Bytes:
    """Read ``length`` bytes of a file from ``offset`` on. Raises ReadError."""
    content = np.empty(length, np.uint8)
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            done = 0
            while done < length:
                count = file.readinto(memoryview(content)[done:])
                if not count:
                    raise ReadError(
                        f"{path} ends at byte {offset + done}; it was cut short while it was read"
                    )
                done += count
    except OSError as error:
        raise ReadError(f"{path} cannot be read at byte {offset}: {error.strerror}") from error
    return content


def files_fingerprint(files: Iterable[Path]) -> str:
    """Return a digest of names, sizes and times of files: it changes when one of them does."""
    digest = hashlib.sha256()
    for file in sorted(files):
        status = file.stat()
        digest.update(f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()

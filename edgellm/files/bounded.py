"""Files of strangers read whole: plain files alone, and no more bytes than was said."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from edgellm.errors import FormatError, ReadError
from edgellm.files.atomic import read_errors


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Return the bytes of a plain file.

    Raises:
        FormatError: it has more than ``max_bytes``, or is a folder, a pipe, a device.
        ReadError: it cannot be read.
    """
    require_regular_file(path)
    with read_errors(path):
        # O_NONBLOCK: opening a pipe that has taken the file's place would wait
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            _require_regular(path, os.fstat(descriptor))
            data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise FormatError(f"{path} is larger than {max_bytes} bytes")
    return data


def require_regular_file(path: Path) -> int:
    """Return the size in bytes of a plain file; reading a pipe or a device could take for ever.

    Raises:
        ReadError: there is nothing, or nothing that may be looked at.
        FormatError: it is a folder, a pipe, a device.
    """
    try:
        with read_errors(path):
            status = path.stat()
    except ValueError as error:  # a zero byte in the name
        raise ReadError(f"{path} cannot be read: {error}") from error
    _require_regular(path, status)
    return status.st_size


def _require_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise FormatError(f"{path} is no plain file")

"""Files of strangers read whole: plain files alone, and no more bytes than was said."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgellm.errors import ConfigError, EdgeLLMError, FormatError, ReadError

READ_BYTES = 1 << 20

LFS_MARK = b"version https://git-lfs"
"""The beginning of what git has in a file's place until git-lfs fetches it."""


@contextmanager
def read_errors(
    path: Path, kind: type[EdgeLLMError] = ReadError, *, hint: str | None = None
) -> Iterator[None]:
    """Turn an OSError of the ``with`` block into an error of ours that names the file."""
    try:
        yield
    except OSError as error:
        raise kind(f"{path} cannot be read: {error.strerror}", hint=hint) from error


def read_in_parts(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a plain file, a megabyte at a time.

    Raises:
        FormatError: it is a folder, a pipe, a device, or a pointer of git-lfs.
        ReadError: it cannot be read.
    """
    require_regular_file(path)
    with read_errors(path), path.open("rb") as file:
        data = file.read(READ_BYTES)
        refuse_lfs_pointer(path, data)
        while data:
            yield data
            data = file.read(READ_BYTES)


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Return the bytes of a plain file.

    Raises:
        FormatError: it has more than ``max_bytes``, or is a folder, a pipe, a device, or a pointer
            of git-lfs.
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
    refuse_lfs_pointer(path, data)
    return data


def read_given_text(path: Path, max_letters: int, *, hint: str | None = None) -> str:
    """Return the text of a file that a person has named, which may be a pipe.

    Raises:
        ConfigError: it cannot be read, has more than ``max_letters``, or is not UTF-8.
    """
    try:
        with read_errors(path, ConfigError, hint=hint), path.open(encoding="utf-8") as file:
            text = file.read(max_letters + 1)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text", hint=hint) from error
    if len(text) > max_letters:
        raise ConfigError(f"{path} is longer than {max_letters} letters", hint=hint)
    return text


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


def refuse_lfs_pointer(path: Path, head: bytes, kind: type[EdgeLLMError] = FormatError) -> None:
    """Raise ``kind`` where a file's first bytes, 7 at least, are those of a git-lfs pointer."""
    if len(head) >= len(b"version") and LFS_MARK.startswith(head[: len(LFS_MARK)]):
        raise kind(
            f"{path} is a pointer of git-lfs, not the file",
            hint="download it again, or git lfs pull",
        )


def _require_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise FormatError(f"{path} is not a regular file")


def read_private(path: Path, what: str, limit: int, *, hint: str) -> bytes:
    """Return what a file holds that is for its owner alone, up to a number of bytes.

    Args:
        path: of the file.
        what: it holds, for errors.
        limit: bytes that are read at most.
        hint: what to do where it cannot be read.

    Raises:
        ConfigError: it cannot be read, or others can read it.
    """
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(limit)
    except OSError as error:
        raise ConfigError(
            f"the {what} cannot be read: {path}: {error.strerror or error}", hint=hint
        ) from error
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigError(f"others can read the {what} {path}", hint=f"chmod 600 {path}")
    return data

"""A file written whole or not at all: under a temporary name, flushed, then renamed."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.errors import ConversionError, EdgeLLMError, ReadError

Data = bytes | bytearray | memoryview | np.ndarray[Any, Any]

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
READ_BYTES = 1 << 20
WRITE_BYTES = 1 << 30
"""Bytes of one call; Linux writes at most 2 GB in one."""

PARTIAL_SUFFIX = ".edgellm.partial"
"""Of a file that is being written: no file of anybody else's has such a name by accident."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file's name, size in bytes and SHA-256, to be compared when it is read again."""

    name: str
    size: int
    sha256: str


def write_file(path: Path, parts: Iterable[Data]) -> FileRecord:
    """Write the parts one after the other; return size and SHA-256.

    Each part is asked for when its turn comes. The file appears under its name only when every
    byte of it is on the disk.

    Raises:
        ConversionError: the disk is full or refuses; nothing is left behind.
    """
    digest = hashlib.sha256()
    size = 0
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    try:
        with partial.open("wb", buffering=0) as file:
            for part in parts:
                rest = _bytes_of(part)
                digest.update(rest)
                size += rest.nbytes
                while rest.nbytes:  # a call may write less than it was given
                    written = os.write(file.fileno(), rest[:WRITE_BYTES])
                    rest = rest[written:]
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise write_error(path, error) from error
        raise
    return FileRecord(path.name, size, digest.hexdigest())


def file_record(path: Path) -> FileRecord:
    """Return size and SHA-256 of a file as it is now. Raises ReadError."""
    digest = hashlib.sha256()
    size = 0
    for data in read_in_parts(path):
        digest.update(data)
        size += len(data)
    return FileRecord(path.name, size, digest.hexdigest())


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
    """Yield the bytes of a file, a megabyte at a time. Raises ReadError."""
    with read_errors(path), path.open("rb") as file:
        while data := file.read(READ_BYTES):
            yield data


def sync_folder(path: Path) -> None:
    """Flush a folder's entries, so that a rename in it outlives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_error(path: Path, error: OSError) -> ConversionError:
    """Return the operating system's refusal to write, in our words."""
    if error.errno in NO_SPACE:
        return ConversionError(
            f"no space left for {path}",
            hint="free some space and run the command again: it goes on where it stopped",
        )
    return ConversionError(f"{path} cannot be written: {error.strerror}")


def _bytes_of(data: Data) -> memoryview:
    if isinstance(data, np.ndarray):
        array = data
    elif len(data):
        array = np.frombuffer(data, np.uint8)
    else:  # which frombuffer refuses
        array = np.empty(0, np.uint8)
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))

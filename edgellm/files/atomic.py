"""A file written whole or not at all: under a temporary name, flushed, then renamed."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.errors import ConversionError, ReadError

Data = bytes | bytearray | memoryview | np.ndarray[Any, Any]

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
READ_CHUNK = 1 << 20
WRITE_CHUNK = 1 << 30
"""Bytes; one call writes at most 2 GB on Linux."""

PARTIAL_SUFFIX = ".edgellm.partial"
"""Of a file that is being written: no file of anybody else's has such a name by accident."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What a file must still be when it is read again."""

    name: str
    size: int
    sha256: str


def write_file(path: Path, pieces: Iterable[Data]) -> FileRecord:
    """Write the pieces one after the other, each asked for when its turn comes; returns size and SHA-256.

    The file appears under its name only when every byte of it is on the disk.

    Raises:
        ConversionError: the disk is full or refuses; nothing is left behind.
    """
    digest, size = hashlib.sha256(), 0
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    try:
        with partial.open("wb", buffering=0) as file:
            for piece in pieces:
                rest = _bytes_of(piece)
                digest.update(rest)
                size += rest.nbytes
                while rest.nbytes:
                    rest = rest[os.write(file.fileno(), rest[:WRITE_CHUNK]) :]
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
    """Size and SHA-256 of a file as it is now. Raises ReadError."""
    digest, size = hashlib.sha256(), 0
    for piece in file_pieces(path):
        digest.update(piece)
        size += len(piece)
    return FileRecord(path.name, size, digest.hexdigest())


def file_pieces(path: Path) -> Iterable[bytes]:
    """The bytes of a file, a megabyte at a time. Raises ReadError."""
    try:
        with path.open("rb") as file:
            while piece := file.read(READ_CHUNK):
                yield piece
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror}") from error


def sync_folder(path: Path) -> None:
    """Flush a folder's entries, so that a rename in it outlives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_error(path: Path, error: OSError) -> ConversionError:
    """The operating system's refusal to write, in our words."""
    if error.errno in NO_SPACE:
        hint = "free some space and run the command again: it goes on where it stopped"
        return ConversionError(f"no space left for {path}", hint=hint)
    return ConversionError(f"{path} cannot be written: {error.strerror}")


def _bytes_of(piece: Data) -> memoryview:
    array = (
        piece
        if isinstance(piece, np.ndarray)
        else np.frombuffer(piece, np.uint8)
        if len(piece)
        else np.empty(0)
    )
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))

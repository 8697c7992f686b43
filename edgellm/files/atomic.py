"""A file written whole or not at all: under a temporary name, flushed, then renamed."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from edgellm.errors import ConversionError
from edgellm.files.bounded import read_in_parts
from edgellm.files.names import PARTIAL_SUFFIX, shortened
from edgellm.files.refusals import CANNOT_SYNC, write_error
from edgellm.files.try_lock import try_lock

if TYPE_CHECKING:
    import numpy as np

Data: TypeAlias = "bytes | bytearray | memoryview | np.ndarray[Any, Any]"

WRITE_BYTES = 1 << 30
"""Bytes of one call; Linux writes at most 2 GB in one."""

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LOOK = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file's name, size in bytes and SHA-256, to be compared when it is read again."""

    name: str
    size: int
    sha256: str


def write_file(
    path: Path, parts: Iterable[Data], *, private: bool = False, durable: bool = True
) -> FileRecord:
    """Write the parts one after the other; return size and SHA-256.

    Each part is asked for when its turn comes. The file appears under its name only when every
    byte of it is on the disk. Of several writers each one writes a file of its own, and the last
    one's stays. What a writer that died has left is removed.

    Args:
        path: the file, or a link, which is replaced.
        parts: the content.
        private: whether the file is for its owner alone, whatever the umask.
        durable: whether it has to outlive a power cut.

    Raises:
        ConversionError: the disk is full or refuses; nothing is left behind.
    """
    digest = hashlib.sha256()

    def hashed() -> Iterator[Data]:
        for part in parts:
            data = _bytes_of(part)
            digest.update(data)
            yield data

    size = write_unhashed(path, hashed(), private=private, durable=durable)
    return FileRecord(path.name, size, digest.hexdigest())


def write_unhashed(
    path: Path, parts: Iterable[Data], *, private: bool = False, durable: bool = True
) -> int:
    """Write the parts as ``write_file`` does; return their bytes. Raises ConversionError."""
    size = 0
    mode = 0o600 if private else 0o666
    try:
        require_replaceable(path)
        _remove_abandoned(path)
        with _partial_file(path, mode) as (partial, descriptor):
            for part in parts:
                rest = _bytes_of(part)
                size += rest.nbytes
                _write_all(descriptor, rest)
            if durable:
                _sync(descriptor)
            partial.replace(path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    return size


def append_to_file(path: Path, data: bytes) -> None:
    """Add to the end of a file, all of ``data`` or nothing.

    Raises:
        ConversionError: the disk is full or refuses.
    """
    try:
        descriptor = os.open(path, _APPEND, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            try:
                _write_all(descriptor, memoryview(data))
                _sync(descriptor)
            except BaseException:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
    except OSError as error:
        raise write_error(path, error) from error


def require_replaceable(path: Path) -> None:
    """Refuse what a rename would destroy: a device or a pipe is not a file to replace.

    Raises:
        ConversionError: there is something, and it is not a regular file.
        OSError: it may not be looked at.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except ValueError as error:  # a zero byte in the name
        raise ConversionError(
            f"{str(path)!r} cannot be written: {error}", hint="name another file"
        ) from error
    if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        raise ConversionError(
            f"{path} cannot be written: it is not a regular file", hint="name another file"
        )


def file_record(path: Path) -> FileRecord:
    """Return size and SHA-256 of a file as it is now. Raises FormatError, ReadError."""
    digest = hashlib.sha256()
    size = 0
    for data in read_in_parts(path):
        digest.update(data)
        size += len(data)
    return FileRecord(path.name, size, digest.hexdigest())


def sync_folder(path: Path) -> None:
    """Flush a folder's entries, so that a rename in it outlives a power cut.

    Where the filesystem does not do that for folders, or the folder may be written but not read,
    there is nothing to be done. Raises OSError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, rest: memoryview) -> None:
    while rest.nbytes:  # a call may write less than it was given
        written = os.write(descriptor, rest[:WRITE_BYTES])
        rest = rest[written:]


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise


@contextmanager
def _partial_file(path: Path, mode: int) -> Iterator[tuple[Path, int]]:
    """Make a file beside ``path``, locked while it is written; it is gone unless it was renamed."""
    while True:
        # A name that nobody can foresee is nobody else's, and no link lies in wait under it.
        partial = path.with_name(_partial_prefix(path) + secrets.token_hex(8) + PARTIAL_SUFFIX)
        try:
            descriptor = os.open(partial, _CREATE, mode)
            try:
                if _is_held(descriptor):
                    yield partial, descriptor
                    return
            finally:
                os.close(descriptor)
        finally:
            with suppress(OSError):
                partial.unlink()


def _is_held(descriptor: int) -> bool:
    """Lock a new file; false where another writer took it for abandoned before it was locked."""
    try:
        try_lock(descriptor)
    except BlockingIOError:
        return False
    return os.fstat(descriptor).st_nlink > 0


def _remove_abandoned(path: Path) -> None:
    """Remove what writers of ``path`` have left that were killed: nobody holds its lock."""
    name = re.compile(re.escape(_partial_prefix(path)) + "[0-9a-f]{16}" + re.escape(PARTIAL_SUFFIX))
    with suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if name.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                _remove_if_abandoned(path.with_name(entry.name))


def _remove_if_abandoned(partial: Path) -> None:
    with suppress(OSError):
        descriptor = os.open(partial, _LOOK)
        try:
            # Its writer may just have renamed it, which gives it another name and no lock.
            if try_lock(descriptor) and os.path.samestat(os.fstat(descriptor), partial.lstat()):
                partial.unlink()
        finally:
            os.close(descriptor)


def _partial_prefix(path: Path) -> str:
    return shortened(path.name) + "."


def _bytes_of(data: Data) -> memoryview:
    import numpy as np  # not above: a shell's completion imports this module, and has no data

    if isinstance(data, np.ndarray):
        array = data
    elif len(data):
        array = np.frombuffer(data, np.uint8)
    else:  # which frombuffer refuses
        array = np.empty(0, np.uint8)
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))

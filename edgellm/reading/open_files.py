"""Files that stay open for reading, past the page cache where the system allows it."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path

from edgellm.errors import ReadError
from edgellm.reading.read_plan import SECTOR

F_NOCACHE = 48
"""macOS: reads of this file leave no pages in the cache."""

REFUSALS = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP})
"""Errors of filesystems without direct reads."""


@dataclass(frozen=True, slots=True)
class FileState:
    """A file's identity, and its state: another one after somebody wrote to it."""

    device: int
    inode: int
    size: int
    modified: int


class OpenFiles:
    """Files open for reading, each as it was when it was opened first.

    Args:
        direct: whether to go past the page cache, where that is possible.

    Attributes:
        refused: whether a filesystem has refused direct reads.
    """

    def __init__(self, *, direct: bool) -> None:
        self.refused: bool = False
        self._direct = direct
        # descriptors by path, and by whether they go past the page cache
        self._open: dict[tuple[Path, bool], int] = {}
        self._states: dict[Path, FileState] = {}
        # files on filesystems that refuse direct reads
        self._buffered: set[Path] = set()
        self._lock = threading.Lock()
        weakref.finalize(self, _close_all, self._open)

    def descriptor(self, path: Path, *, direct: bool | None = None) -> int:
        """Return a file's descriptor, opening it if it was not open. Raises ReadError."""
        if direct is None:
            direct = self._direct
        with self._lock:
            if direct and path not in self._buffered:
                try:
                    return self._opened(path, direct=True)
                except OSError as failure:
                    if failure.errno not in REFUSALS:
                        raise _open_error(path, failure) from failure
                    self._refuse(path)
            try:
                return self._opened(path, direct=False)
            except OSError as failure:
                raise _open_error(path, failure) from failure

    def size(self, path: Path) -> int:
        """Return the bytes of a file that is open."""
        return self._states[path].size

    def fill(self, path: Path, target: memoryview, offset: int, *, needed: int) -> None:
        """Read into ``target``, in as many calls as it takes.

        Args:
            path: the path of the file.
            target: of whole sectors for a direct read, which may reach past the file's end.
            offset: in the file.
            needed: bytes that must arrive.

        Raises:
            ReadError: the file has been changed or cut short, is gone, or cannot be read.
        """
        arrived = 0
        # the system may give less than it was asked for
        while arrived < needed:
            try:
                count = self.read(path, target[arrived:], offset + arrived)
            except OSError as failure:
                raise _read_error(path, failure, len(target), offset) from failure
            if count == 0:
                raise ReadError(
                    f"{path} ends at offset {self.size(path)}, "
                    f"but the model needs the bytes up to {offset + needed}",
                    hint="the file was cut short or replaced: download or convert the model again",
                )
            arrived += count

    def read(self, path: Path, target: memoryview, offset: int) -> int:
        """Read into ``target`` what one call gives; return the bytes, 0 at the file's end.

        Raises:
            ReadError: the file has been changed since it was opened, or is gone.
            OSError: the system's refusal.
        """
        # direct reads are of whole sectors; others of the same file go through the page cache
        direct = self._direct and offset % SECTOR == 0 and len(target) % SECTOR == 0
        descriptor = self.descriptor(path, direct=direct)
        try:
            count = os.preadv(descriptor, [target], offset)
        except OSError as failure:
            # some filesystems open for direct reads and then refuse them
            if not direct or failure.errno not in REFUSALS:
                raise
            with self._lock:
                self._refuse(path)
            return self.read(path, target, offset)
        if _state(descriptor) != self._states[path]:
            raise ReadError(
                f"{path} was changed while the model was in use, noticed at offset {offset}",
                hint="load the model again; `edgellm verify` checks a whole model",
            )
        return count

    def close(self) -> None:
        """Close them all."""
        with self._lock:
            _close_all(self._open)

    def _opened(self, path: Path, *, direct: bool) -> int:
        if (path, direct) not in self._open:
            descriptor = open_for_reading(path, direct=direct)
            self._open[path, direct] = descriptor
            self._states.setdefault(path, _state(descriptor))
        return self._open[path, direct]

    def _refuse(self, path: Path) -> None:
        """Note that a file's filesystem refuses direct reads."""
        self._buffered.add(path)
        self.refused = True


def open_for_reading(path: Path, *, direct: bool) -> int:
    """Open a file and return its descriptor.

    Args:
        path: the path of the file.
        direct: whether to read past the page cache, where the system allows it.

    Raises:
        OSError: the file is gone, or the system's refusal.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC
    if direct and sys.platform != "darwin":
        flags |= getattr(os, "O_DIRECT", 0)
    descriptor = os.open(path, flags)
    # macOS has no O_DIRECT
    if direct and sys.platform == "darwin":
        fcntl.fcntl(descriptor, F_NOCACHE, 1)
    return descriptor


def file_size(path: Path) -> int:
    """Return the bytes of a file that need not be open. Raises ReadError."""
    try:
        return path.stat().st_size
    except OSError as failure:
        raise _open_error(path, failure) from failure


def _open_error(path: Path, failure: OSError) -> ReadError:
    if isinstance(failure, FileNotFoundError):
        return ReadError(f"{path} is gone", hint="download or convert the model again")
    return ReadError(
        f"{path} cannot be opened: {failure.strerror}",
        hint="check that you may read it, and how many files may be open (ulimit -n)",
    )


def _read_error(path: Path, failure: OSError, nbytes: int, offset: int) -> ReadError:
    return ReadError(
        f"reading {nbytes} bytes at offset {offset} of {path} failed: {failure.strerror}",
        hint="check the disk, and that the file was not changed; "
        "`edgellm verify` checks a whole model",
    )


def _state(descriptor: int) -> FileState:
    status = os.fstat(descriptor)
    return FileState(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _close_all(descriptors: dict[tuple[Path, bool], int]) -> None:
    while descriptors:
        os.close(descriptors.popitem()[1])

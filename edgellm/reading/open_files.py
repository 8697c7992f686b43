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
"""What filesystems without direct reads say."""


@dataclass(frozen=True, slots=True)
class State:
    """What tells a file from another, and from itself after somebody wrote to it."""

    device: int
    number: int
    size: int
    changed: int


class OpenFiles:
    """Files open for reading, each as it was when it was opened first.

    Args:
        direct: whether to go past the page cache, where that is possible.
    """

    def __init__(self, *, direct: bool) -> None:
        self.refused = False
        """Whether a filesystem has refused direct reads."""
        self._direct = direct
        self._open: dict[tuple[Path, bool], int] = {}
        self._state: dict[Path, State] = {}
        self._buffered: set[Path] = set()
        self._lock = threading.Lock()
        weakref.finalize(self, _close, self._open)

    def descriptor(self, path: Path, *, direct: bool | None = None) -> int:
        """The file's descriptor; it is opened if it was not yet. Raises ReadError, OSError."""
        direct = self._direct if direct is None else direct
        with self._lock:
            key = (path, direct and path not in self._buffered)
            if key not in self._open:
                try:
                    opened = open_for_reading(path, direct=key[1])
                except OSError as failure:
                    if not key[1] or failure.errno not in REFUSALS:
                        raise
                    self._buffered.add(path)
                    self.refused, key = True, (path, False)
                    opened = (
                        self._open[key]
                        if key in self._open
                        else open_for_reading(path, direct=False)
                    )
                self._open[key] = opened
                self._state.setdefault(path, _state(opened))
            return self._open[key]

    def size(self, path: Path) -> int:
        """Bytes of a file that is open."""
        return self._state[path].size

    def read(self, path: Path, target: memoryview, offset: int) -> int:
        """Read into ``target`` what one call gives; returns bytes, 0 at the file's end.

        Raises:
            ReadError: the file has been changed since it was opened, or is gone.
            OSError: the system's refusal.
        """
        direct = self._direct and offset % SECTOR == 0 and len(target) % SECTOR == 0
        descriptor = self.descriptor(path, direct=direct)
        try:
            count = os.preadv(descriptor, [target], offset)
        except OSError as failure:
            if not direct or failure.errno not in REFUSALS:
                raise
            with self._lock:
                self._buffered.add(path)
                self.refused = True
            return self.read(path, target, offset)
        if _state(descriptor) != self._state[path]:
            raise ReadError(
                f"{path} was changed while the model was in use, noticed at offset {offset}",
                hint="load the model again; `edgellm verify` checks a whole model",
            )
        return count

    def close(self) -> None:
        """Close them all."""
        with self._lock:
            _close(self._open)


def open_for_reading(path: Path, *, direct: bool) -> int:
    """Open a file, past the page cache where ``direct`` and the system allow it. Raises OSError, ReadError."""
    try:
        if not direct:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if sys.platform == "darwin":
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.fcntl(descriptor, F_NOCACHE, 1)
            return descriptor
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_DIRECT", 0))
    except FileNotFoundError as failure:
        raise ReadError(f"{path} is gone", hint="download or convert the model again") from failure


def _state(descriptor: int) -> State:
    status = os.fstat(descriptor)
    return State(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _close(opened: dict[tuple[Path, bool], int]) -> None:
    while opened:
        os.close(opened.popitem()[1])

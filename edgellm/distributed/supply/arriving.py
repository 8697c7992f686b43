"""A file that comes from another machine piece by piece, and goes on where it was cut off."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from edgellm.errors import ConversionError, MachineError
from edgellm.files.atomic import sync_folder
from edgellm.files.bounded import READ_BYTES
from edgellm.files.names import PARTIAL_SUFFIX, beside
from edgellm.files.refusals import write_error
from edgellm.files.try_lock import try_lock

_OPEN = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


def arrived_bytes(path: Path) -> int:
    """Return how many bytes of a file have come that is not whole yet."""
    try:
        return beside(path, PARTIAL_SUFFIX).lstat().st_size
    except OSError:
        return 0


class ArrivingFile:
    """A file under a temporary name, and the digest of what has come so far.

    What has come stays where the connection ends, or the process.

    Args:
        path: the file that it becomes.
        start: bytes of it that are here already and stay; further ones are given up.

    Raises:
        ConversionError: the disk refuses, or another process writes the same file.
    """

    def __init__(self, path: Path, start: int) -> None:
        self.path = path
        self._partial = beside(path, PARTIAL_SUFFIX)
        self._digest = hashlib.sha256()
        self.nbytes: int = start
        try:
            self._file = os.open(self._partial, _OPEN, 0o600)
        except OSError as error:
            raise write_error(path, error) from error
        try:
            self._begin(start)
        except BaseException:
            self.close()
            raise

    def append(self, data: memoryview) -> None:
        """Write what comes next. Raises ConversionError."""
        rest = data
        try:
            while rest.nbytes:
                written = os.write(self._file, rest)
                self._digest.update(rest[:written])
                self.nbytes += written
                rest = rest[written:]
        except OSError as error:
            raise write_error(self.path, error) from error

    def finish(self, digest: str) -> None:
        """Give the file its name, once it is what was sent.

        Raises:
            MachineError: it is not, and is removed.
            ConversionError: the disk refuses.
        """
        if self._digest.hexdigest() != digest:
            self._partial.unlink(missing_ok=True)
            raise MachineError(
                f"{self.path.name} has arrived damaged, and is removed",
                hint="start again, which sends it anew; if it comes back, check disk and memory",
            )
        try:
            os.fsync(self._file)
            self._partial.replace(self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            raise write_error(self.path, error) from error

    def close(self) -> None:
        """Close the file, whole or not."""
        os.close(self._file)

    def _begin(self, start: int) -> None:
        try:
            try_lock(self._file)
            if os.fstat(self._file).st_size < start:
                raise MachineError(f"{self.path.name} is shorter than it was", hint="start again")
            os.ftruncate(self._file, start)
            place = 0
            while place < start:
                data = os.pread(self._file, min(READ_BYTES, start - place), place)
                self._digest.update(data)
                place += len(data)
        except BlockingIOError as error:
            raise ConversionError(
                f"{self.path} is being written by another process",
                hint="wait for it: two machines of a cluster on one computer may share files",
            ) from error
        except OSError as error:
            raise write_error(self.path, error) from error

"""The lock of a long operation: one at a time makes a file or folder, and says who it is."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgellm.errors import ConversionError
from edgellm.files.names import LOCK_SUFFIX, beside
from edgellm.files.refusals import write_error
from edgellm.files.try_lock import try_lock

MAX_BYTES = 4096
"""Of what a lock says of its holder."""

MAX_COMMAND = 100
"""Characters."""

_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def file_lock(destination: Path, command: str) -> Iterator[None]:
    """Hold ``DEST.edgellm.lock`` for the ``with`` block, in which ``destination`` is made.

    The lock ends with the process, however that ends, and its file is removed. A filesystem
    without locks goes on without.

    Args:
        destination: a file or folder, whose own folder exists.
        command: who holds it, for the error of the next one: ``edgellm convert``.

    Raises:
        ConversionError: another one is at work on ``destination``, or the disk refuses.
    """
    path = beside(destination, LOCK_SUFFIX)
    try:
        descriptor = _acquired(path, destination)
    except OSError as error:
        # its folder refuses, unless the lock itself is there and somebody else's
        refused = path if os.path.lexists(path) else destination
        raise write_error(refused, error) from error
    try:
        _write_holder(descriptor, command)
        yield
    finally:
        # While it is held: whoever has opened it meanwhile sees that it is no longer there.
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _acquired(path: Path, destination: Path) -> int:
    while True:
        descriptor = os.open(path, _OPEN, 0o644)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConversionError(
                    f"{path} is in the way: it is not a regular file",
                    hint="move it, or name another destination",
                )
            try_lock(descriptor)
            if os.path.samestat(os.fstat(descriptor), path.lstat()):
                return descriptor
        except BlockingIOError:
            raise _busy(destination, descriptor) from None
        except FileNotFoundError:
            pass  # its holder has just ended, and removed it
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _write_holder(descriptor: int, command: str) -> None:
    holder = {"pid": os.getpid(), "command": command, "started": int(time.time())}
    with suppress(OSError):  # a full disk, which the operation itself will meet
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def _busy(destination: Path, descriptor: int) -> ConversionError:
    return ConversionError(
        f"{destination} is being written by {_holder(descriptor)}",
        hint="wait for it, or name another destination",
    )


def _holder(descriptor: int) -> str:
    """Return who holds a lock, as it says itself, and in general words where it does not."""
    try:
        holder = json.loads(os.pread(descriptor, MAX_BYTES, 0))
        pid, command = int(holder["pid"]), str(holder["command"])
        started = time.strftime("%H:%M:%S", time.localtime(int(holder["started"])))
    # half written, or not ours: RecursionError is JSON nested too deeply
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return "another process"
    return f"{ascii(command)[1:-1][:MAX_COMMAND]} (process {pid}, since {started})"

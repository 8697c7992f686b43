"""Locks of open files, that end with the process that holds them."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def try_lock(descriptor: int) -> bool:
    """Take an open file's lock; return false where the filesystem has none.

    Raises:
        BlockingIOError: another process, or another thread of this one, holds it.
        OSError: the disk refuses.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def mark_in_use(folder: Path) -> Callable[[], None]:
    """Let other processes see that a folder is in use; return what ends that.

    Where it cannot be marked, it is used all the same.
    """
    try:
        descriptor = os.open(folder, _FOLDER)
    except OSError:
        return _nothing
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    open_descriptors = [descriptor]

    def end() -> None:
        while open_descriptors:
            os.close(open_descriptors.pop())

    return end


def is_in_use(folder: Path) -> bool:
    """Return whether a process, this one too, has marked a folder as in use."""
    try:
        descriptor = os.open(folder, _FOLDER)
    except OSError:
        return False
    try:
        try_lock(descriptor)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    else:
        return False
    finally:
        os.close(descriptor)


def _nothing() -> None:
    """Do nothing."""

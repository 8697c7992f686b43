"""Locks of open files, that end with the process that holds them."""

from __future__ import annotations

import errno
import fcntl

_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}


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

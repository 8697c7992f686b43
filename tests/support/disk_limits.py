"""A disk that has no room left, and files that are for their owner alone."""

import os
import resource
from contextlib import contextmanager


@contextmanager
def file_size_limit(nbytes):
    """Let no file of this process grow past ``nbytes``, as if the disk were full."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))


@contextmanager
def no_umask():
    """Make files that all may read and write, unless somebody thinks of it."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def open_to_others(folder):
    """The files and folders below ``folder`` that others may read or write."""
    return [path for path in folder.rglob("*") if path.lstat().st_mode & 0o077]


def fill(disk, *, leave=0):
    """Take the free room of a disk, but for ``leave`` bytes; return the file that takes it."""
    filler = disk / "filler"
    with filler.open("ab") as file:
        size = 1 << 20
        while size:
            try:
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size)
            except OSError:
                size //= 2
        taken = os.fstat(file.fileno()).st_size
        os.ftruncate(file.fileno(), max(0, taken - leave))
    return filler

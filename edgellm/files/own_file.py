"""Files that nobody else can have written, as files have to be whose content is run."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from pathlib import Path

from edgellm.errors import FormatError
from edgellm.files.locations import make_private_folder

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def read_own_file(path: Path, max_bytes: int) -> bytes | None:
    """Return the bytes of a file that nobody else may write, as its folder and that above are.

    All three are checked as they are opened, each within the one before, so that nothing can take
    their place in between. Neither the file nor its folder may be a link.

    Returns:
        None where there is no such file, or it cannot be read.

    Raises:
        FormatError: others may have written it; says why.
    """
    places = [
        (path.parent.parent, _FOLDER),
        (path.parent, _FOLDER | os.O_NOFOLLOW),
        (path, _FILE),
    ]
    folder: int | None = None
    with ExitStack() as opened:
        for place, flags in places:
            name = place if folder is None else place.name
            try:
                descriptor = os.open(name, flags, dir_fd=folder)
            except OSError:
                if place.is_symlink():
                    raise FormatError(f"{place} is a link") from None
                return None
            opened.callback(os.close, descriptor)
            status = os.fstat(descriptor)
            _require_own(place, status)
            folder = descriptor
        if not stat.S_ISREG(status.st_mode):
            return None
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(max_bytes)


def make_own_folder(path: Path, pattern: str) -> None:
    """Make a folder that nobody else may write to, as the one above it.

    Where others could write to one of them they no longer can, and files in ``path`` whose names
    have the pattern are removed: they may be theirs.

    Raises:
        OSError: the disk refuses.
        FormatError: one of the two belongs to somebody else.
    """
    make_private_folder(path)
    was_open = False
    for folder, flags in ((path.parent, _FOLDER), (path, _FOLDER | os.O_NOFOLLOW)):
        descriptor = os.open(folder, flags)
        try:
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
            if mode & _OTHERS_WRITE:
                was_open = True
                os.fchmod(descriptor, mode & ~_OTHERS_WRITE)
            _require_own(folder, os.fstat(descriptor))
        finally:
            os.close(descriptor)
    if was_open:
        for file in path.glob(pattern):
            file.unlink(missing_ok=True)


def _require_own(place: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise FormatError(f"{place} belongs to another user")
    if status.st_mode & _OTHERS_WRITE:
        raise FormatError(f"others may write to {place}")

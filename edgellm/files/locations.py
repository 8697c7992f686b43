"""Folders of our own: for what can be found out again, for a while, for the owner alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgellm.errors import ConversionError
from edgellm.files.refusals import write_error


def cache_folder() -> Path:
    """Return the user's cache folder, with our name; it may not exist yet.

    Measurements, compiled code, conversations and caches lie there.
    """
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "edgellm"
    # https://specifications.freedesktop.org/basedir-spec
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "edgellm"
    return Path.home() / ".cache" / "edgellm"


def make_private_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing, for the owner alone.

    What people say to a model is for nobody else on the machine. Raises OSError.
    """
    if not os.path.isdir(path.parent):
        make_private_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)


@contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """Make a folder for the ``with`` block, in ``parent`` or where the system has its own.

    Raises:
        ConversionError: none can be made.
    """
    import tempfile

    try:
        if parent is not None:
            make_private_folder(parent)
        folder = tempfile.TemporaryDirectory(prefix="edgellm-", dir=parent)
    except OSError as error:
        if parent is not None:
            raise write_error(parent, error) from error
        raise ConversionError(
            f"no temporary folder can be made: {error.strerror or error}",
            hint="set TMPDIR to a folder on a disk with room",
        ) from error
    with folder as name:
        yield Path(name)

"""Where something is to be made: its path, its folder, and the room on its disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgellm.console.units import size
from edgellm.errors import ConfigError, ConversionError
from edgellm.files.given_path import given_path
from edgellm.files.refusals import write_error

SPARE_BYTES = 32 << 20
"""Room for the index, the config and the filesystem's own books."""


def destination_path(destination: str | Path) -> Path:
    """Return where something is to be made, links followed.

    Raises:
        ConversionError: no file can have such a name.
    """
    try:
        path = given_path(destination).resolve()
    except ConfigError as error:
        fact = f"the destination cannot be written: {error.message}"
        raise ConversionError(fact, hint=error.hint) from error
    if not path.name:  # beside it there is nothing
        raise ConversionError(f"{path} is the root of all folders", hint="name a folder in it")
    return path


def make_folder_of(path: Path) -> None:
    """Make the folder that a file or folder is to lie in. Raises ConversionError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        for folder in path.parents:
            if folder.exists() and not folder.is_dir():
                raise ConversionError(
                    f"{path} cannot be written: {folder} is a file", hint="name another place"
                ) from error
        raise write_error(path, error) from error


def require_space(
    path: Path,
    needed: int,
    *,
    spare: int = SPARE_BYTES,
    hint: str = "free some space, name a destination on another disk, or take fewer bits",
) -> None:
    """Refuse at once what cannot end well.

    Args:
        path: what is to be made.
        needed: bytes that are still to be written.
        spare: bytes besides.
        hint: what to do where the disk has less.

    Raises:
        ConversionError: the disk has less.
    """
    needed += spare
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError as error:
        raise write_error(path, error) from error
    if needed > free:
        raise ConversionError(
            f"{path} needs {size(needed)}, which is {size(needed - free)} more than the disk has "
            "free",
            hint=hint,
        )

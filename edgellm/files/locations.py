"""The folder for what edgellm can find out again: measurements, compiled code, caches."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Return the user's cache folder, with our name; it may not exist yet."""
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

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

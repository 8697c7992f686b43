"""A path that a person gave: looked at once, where it enters."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from edgellm.errors import ConfigError
from edgellm.files.strict_json import quoted
from edgellm.setting_values import shown

_NOTHING_THERE = (FileNotFoundError, NotADirectoryError)

_HINTS = {
    errno.ENAMETOOLONG: "give a shorter one",
    errno.ELOOP: "a link in it leads back to itself; name the file that it should lead to",
    errno.EACCES: "name a path that you may read, or ask for permission",
}


def given_path(text: str | Path) -> Path:
    """Return a path with its ``~`` expanded; there may be nothing.

    Raises:
        ConfigError: nothing can be looked for there: it is empty, the name is too long or no name,
            a link leads back to itself, there is no such home, or the system refuses.
    """
    if not isinstance(text, str | os.PathLike) or isinstance(os.fspath(text), bytes):
        raise ConfigError(f"the path is {shown(text)}; it must be a text or a pathlib.Path")
    if not str(text):
        raise ConfigError("the path '' is empty", hint="name a file or folder, or . for this one")
    try:
        path = Path(text).expanduser()
        if stat.S_ISDIR(path.stat().st_mode):
            os.stat(os.path.join(path, "."))  # refused where nothing in it may be looked for
    except _NOTHING_THERE:
        return path
    # ValueError: a null character in it; RuntimeError: no such home
    except (OSError, ValueError, RuntimeError) as error:
        reason, hint = str(error).rstrip("."), "check how it is written"
        if isinstance(error, OSError):
            reason = error.strerror or reason
            hint = _HINTS.get(error.errno or 0, hint)
        raise ConfigError(
            f"the path {quoted(str(text))} cannot be used: {reason}", hint=hint
        ) from error
    return path

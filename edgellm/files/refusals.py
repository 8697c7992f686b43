"""The operating system's refusals to write, in our words."""

from __future__ import annotations

import errno
from pathlib import Path

from edgellm.errors import ConversionError, EdgeLLMError

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EROFS}
"""Of a filesystem that does not flush on demand: what was written is there all the same."""

_HINTS = {
    errno.ENOSPC: "free some space and run the command again",
    errno.EDQUOT: "free some of your quota and run the command again",
    errno.EFBIG: "name a place on another disk, or raise the limit: ulimit -f unlimited",
    errno.EROFS: "name a place on a disk that can be written",
    errno.EACCES: "name a place that you may write to",
    errno.EPERM: "name a place that you may write to",
    errno.ENOENT: "make its folder first, or name another place",
    errno.ENAMETOOLONG: "give it a shorter name",
}


def write_error(
    path: Path, error: OSError, kind: type[EdgeLLMError] = ConversionError
) -> EdgeLLMError:
    """Return a refusal to write as an error of ours that names the file and a next step."""
    hint = _HINTS.get(error.errno or 0, "name another place")
    if error.errno == errno.EFBIG:
        return kind(f"no space left for {path}: files may not be that large here", hint=hint)
    if error.errno in NO_SPACE:
        return kind(f"no space left for {path}", hint=hint)
    return kind(f"{path} cannot be written: {error.strerror or error}", hint=hint)


def is_full_disk(error: BaseException) -> bool:
    """Whether an error of ``write_error`` says that there was no space left."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in NO_SPACE

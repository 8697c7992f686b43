"""The cache's own sub-folder in anybody's folder: nothing else is ever deleted.

FOLDER/edgellm-prompt-cache/                        made in one step with its marker
    .edgellm-prompt-cache                           the marker
    model-<32 hex>/                                 one model with its settings
        edgellm-kv-<64 hex>.safetensors             a sequence
        edgellm-kv-<64 hex>.safetensors.<16 hex>.edgellm.partial     one that is being written
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgellm.files.locations import make_private_folder
from edgellm.files.names import PARTIAL_SUFFIX

FOLDER_NAME = "edgellm-prompt-cache"
MARKER_NAME = ".edgellm-prompt-cache"
MARKER_TEXT = (
    "The sequences below this folder are edgellm's; it deletes them when it needs the room.\n"
)

_MODEL_NAME = re.compile(r"model-[0-9a-f]{32}")
_SEQUENCE_NAME = re.compile(r"edgellm-kv-[0-9a-f]{64}\.safetensors")
_TEMPORARY_NAME = re.compile(
    rf"edgellm-kv-[0-9a-f]{{64}}\.safetensors\.[0-9a-f]{{16}}{re.escape(PARTIAL_SUFFIX)}"
)


@dataclass(frozen=True, slots=True)
class CacheFile:
    """A file of ours: a sequence, or a temporary file of a process that writes one."""

    path: Path
    nbytes: int
    modified_ns: int
    """When it was written or last used, in nanoseconds since 1970."""

    @property
    def is_temporary(self) -> bool:
        """Whether it is a sequence that is being written, or was when its writer died."""
        return _TEMPORARY_NAME.fullmatch(self.path.name) is not None


class OwnedFolder:
    """The sub-folder of our own below ``parent``, which need not exist.

    A sub-folder of this name without the marker is somebody else's: it is neither read nor changed.
    Symbolic links are never followed below ``parent``.
    """

    def __init__(self, parent: Path) -> None:
        self.path: Path = parent / FOLDER_NAME

    @property
    def is_ours(self) -> bool:
        """Whether the sub-folder exists and has the marker."""
        return _is_real_folder(self.path) and _is_plain_file(self.path / MARKER_NAME)

    def create(self, model: str) -> Path:
        """Make the sub-folder unless it exists, and return the folder of one model in it.

        Args:
            model: 32 hexadecimal digits that tell models and settings apart.

        Raises:
            OSError: the disk refuses, or the place is taken by something that is not ours.
        """
        if not self.is_ours:
            self._create_with_marker()
        folder = self.model_folder(model)
        folder.mkdir(exist_ok=True, mode=0o700)
        if not _is_real_folder(folder):
            raise FileExistsError(f"{folder} is a link")
        return folder

    def model_folder(self, model: str) -> Path:
        """The folder of one model's sequences, which need not exist."""
        return self.path / f"model-{model}"

    def sequences(self, model: str) -> list[Path]:
        """The files of one model's sequences, in the order of their names."""
        if not self.is_ours:
            return []
        files = _own_files(self.model_folder(model))
        return sorted(file.path for file in files if not file.is_temporary)

    def files(self) -> list[CacheFile]:
        """All files of ours, of every model."""
        if not self.is_ours:
            return []
        folders = [path for path in _entries(self.path) if _MODEL_NAME.fullmatch(path.name)]
        return [file for folder in folders for file in _own_files(folder)]

    def delete(self, path: Path) -> None:
        """Delete a file of ours, if it is still there.

        Raises:
            PermissionError: it is not one of ours.
            OSError: the disk refuses.
        """
        is_own = (
            self.is_ours
            and path.parent.parent == self.path
            and _MODEL_NAME.fullmatch(path.parent.name) is not None
            and _is_own_name(path.name)
        )
        if not is_own:
            raise PermissionError(f"{path} is not a file of the prompt cache")
        # Another process may have deleted it.
        if _is_real_folder(path.parent) and _is_plain_file(path):
            path.unlink(missing_ok=True)

    def _create_with_marker(self) -> None:
        parent = self.path.parent
        make_private_folder(parent)
        if os.path.lexists(self.path):
            raise FileExistsError(f"{self.path} exists and is not a prompt cache of edgellm")
        # Renamed only with the marker in it, so that no process ever sees it without.
        new = Path(tempfile.mkdtemp(prefix=f".{FOLDER_NAME}-", dir=parent))
        marker = new / MARKER_NAME
        try:
            marker.touch(mode=0o600)
            marker.write_text(MARKER_TEXT)
            new.rename(self.path)
        except BaseException as error:
            with suppress(OSError):
                marker.unlink(missing_ok=True)
                new.rmdir()
            # Another process was quicker: a folder is not renamed over one that is not empty.
            if not isinstance(error, OSError) or not self.is_ours:
                raise


def sequence_name(tokens_digest: str) -> str:
    """The name of a sequence's file, by the SHA-256 of its tokens in hexadecimal."""
    return f"edgellm-kv-{tokens_digest}.safetensors"


def _own_files(folder: Path) -> Iterator[CacheFile]:
    for path in _entries(folder):
        if not _is_own_name(path.name):
            continue
        with suppress(OSError):  # another process may have deleted it
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                yield CacheFile(path, status.st_size, status.st_mtime_ns)


def _is_own_name(name: str) -> bool:
    return any(pattern.fullmatch(name) for pattern in (_SEQUENCE_NAME, _TEMPORARY_NAME))


# Those of os.path say no where a folder may not be read; Path's own raise PermissionError.
def _is_real_folder(path: Path) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _is_plain_file(path: Path) -> bool:
    return os.path.isfile(path) and not os.path.islink(path)


def _entries(folder: Path) -> list[Path]:
    """List a folder; empty where it is a link, may not be read, or was just deleted."""
    if not _is_real_folder(folder):
        return []
    try:
        return list(folder.iterdir())
    except OSError:
        return []

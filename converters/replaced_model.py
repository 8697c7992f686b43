"""The model at a destination, which gives way to a new one, and what else is in its folder.

Only files that edgellm has written go with it. What a person has put beside them, a link, a folder,
a text, is kept: it moves into the new folder.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgellm.checkpoint.folder import CHECKSUMS, MANIFEST, read_checksums
from edgellm.converters.manifest import is_written
from edgellm.errors import ConversionError, FormatError, ReadError
from edgellm.files.names import beside

REPLACED_SUFFIX = ".edgellm.replaced"
"""Of the old folder, from the moment that the new one takes its place to its end."""

MOVE_IT = "move it, or name another destination"


class ReplacedModel:
    """The folder at a destination.

    Args:
        destination: the folder that a conversion becomes.
        names: the names of all files that the conversion writes.
    """

    def __init__(self, destination: Path, names: Collection[str]) -> None:
        self.aside: Path = beside(destination, REPLACED_SUFFIX)
        """Where the old folder lies while the new one takes its place."""
        self._destination = destination
        self._names = {*names, MANIFEST}

    def require_free(self, *, replace: bool) -> None:
        """Raise ConversionError unless the destination is free, or ours and to be replaced."""
        path = self._destination
        if not os.path.lexists(path):
            return
        if not path.is_dir():
            raise ConversionError(f"{path} is a file", hint="name another destination")
        if not any(path.iterdir()):
            return
        if not replace:
            raise ConversionError(
                f"{path} already exists", hint="name another one, or replace it with --force"
            )
        ours = self._written(path)
        if ours is None:
            raise ConversionError(
                f"{path} is not a model that edgellm made, and will not be replaced", hint=MOVE_IT
            )
        in_the_way = sorted(
            entry.name
            for entry in path.iterdir()
            if entry.name in self._names and not is_written(entry, ours)
        )
        if in_the_way:
            raise ConversionError(
                f"{path / in_the_way[0]} is not a file that edgellm made, and will not be replaced",
                hint=MOVE_IT,
            )
        if self.is_aside():
            raise ConversionError(f"{self.aside} is in the way", hint=MOVE_IT)

    @contextmanager
    def moved_aside(self) -> Iterator[None]:
        """Make way for the ``with`` block; come back if it fails. Raises OSError."""
        moved = self._destination.is_dir() and any(self._destination.iterdir())
        if moved:
            self._destination.rename(self.aside)
        try:
            yield
        except BaseException:
            if moved and not os.path.lexists(self._destination):
                self.aside.rename(self._destination)
            raise

    def is_aside(self) -> bool:
        """Return whether anything lies where the old folder is put."""
        return os.path.lexists(self.aside)

    def recover(self) -> None:
        """Finish what a process left half done that was killed while it replaced a model.

        Raises OSError.
        """
        if not self.is_aside():
            return
        if self._written(self.aside) is None:
            with suppress(OSError):  # an empty one is all that it can be if it was ours
                self.aside.rmdir()
        elif os.path.lexists(self._destination):
            self.retire()
        else:
            self.aside.rename(self._destination)

    def retire(self) -> None:
        """Remove the old folder; what we have not written moves into the new one.

        What is there under the same name stays where it is. Raises OSError.
        """
        if not self.is_aside():
            return
        ours = self._written(self.aside)
        if ours is None:
            return
        for entry in list(self.aside.iterdir()):
            if entry.name == CHECKSUMS:
                continue  # without it nobody would know what was ours
            new = self._destination / entry.name
            if is_written(entry, ours):
                entry.unlink()
            elif not os.path.lexists(new):
                entry.rename(new)
        with suppress(OSError):
            if len(list(self.aside.iterdir())) == 1:
                (self.aside / CHECKSUMS).unlink()
            self.aside.rmdir()

    @staticmethod
    def _written(folder: Path) -> set[str] | None:
        """Return the names of the files that edgellm has written into a folder; None: not ours."""
        if folder.is_symlink():
            return None
        try:
            return {record.name for record in read_checksums(folder)} | {CHECKSUMS}
        except (FormatError, ReadError):
            return None

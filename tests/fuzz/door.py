"""A door: a place where bytes, values or programs by strangers come in."""

import json
from abc import ABC, abstractmethod
from pathlib import Path

Files = dict[str, bytes]
"""A case: file names and their contents, those alone that differ from the whole example's."""


class DifferenceError(Exception):
    """What was read is not what the reference library reads from the same bytes."""


class UnreadableError(Exception):
    """The reference library refuses what was accepted: there is nothing to compare."""


class Door(ABC):
    """One door; its cases depend on their number alone."""

    name: str
    share: int
    """Of a run's cases, in thousandths."""

    compares = "nothing"
    """What an accepted case is compared with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._whole: Files = {}
        self._changed: set[str] = set()

    @abstractmethod
    def damage(self, random) -> Files:
        """A case by a random generator."""

    @abstractmethod
    def open(self, files):
        """Take a case in; what was read, or an EdgeLLMError."""

    def check(self, opened, files) -> bool:
        """Whether it was compared; a DifferenceError where the library reads another thing."""
        return False

    def keep(self, files) -> None:
        """Have these files in the folder whenever a case does not replace them."""
        self._whole |= files
        for name, data in files.items():
            self._write(name, data)

    def put(self, files) -> None:
        """Have a case's files in the folder, and of the case before nothing."""
        for name in self._changed - files.keys():
            if name in self._whole:
                self._write(name, self._whole[name])
            else:
                (self.folder / name).unlink(missing_ok=True)
        for name, data in files.items():
            self._write(name, data)
        self._changed = set(files)

    def _write(self, name: str, data: bytes) -> None:
        with (self.folder / name).open("wb") as file:
            file.write(data)


def as_bytes(document) -> bytes:
    """A document as JSON in UTF-8."""
    return json.dumps(document).encode()

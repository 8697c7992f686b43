"""A door: a place where bytes, values or programs by strangers come in."""

import json
from abc import ABC, abstractmethod
from contextlib import contextmanager
from pathlib import Path

from edgellm.converters.tensors.recipe import make_recipe
from edgellm.converters.tensors.settings import ConversionSettings

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


def read_beginnings(source) -> None:
    """Read a source as a conversion begins to: its recipe, some rows of each tensor, the rest."""
    make_recipe(source, ConversionSettings())
    for name, tensor in source.tensors.items():
        source.rows(name, 0, min(2, tensor.rows))
    dict(source.companions)


@contextmanager
def by_the_library():
    """Say that there is nothing to compare where the reference library refuses."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of Rust is no Exception
        raise UnreadableError from error


def as_bytes(document) -> bytes:
    """A document as JSON in UTF-8."""
    return json.dumps(document).encode()

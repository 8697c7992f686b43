"""The values of a GGUF header, read within bounds that no hostile file can pass.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. All numbers are
little-endian; a text is its length (uint64) and UTF-8; an array is its values' type (uint32), its
length (uint64) and the values.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.folder import DOWNLOAD_AGAIN
from edgellm.errors import FormatError
from edgellm.files.strict_json import quoted

MAX_HEADER_BYTES = 64 << 20
"""A vocabulary of 262,144 tokens with its merges takes 16 MB."""

MAX_STRINGS = 1 << 20
"""Texts in all arrays together."""

READ_BYTES = 1 << 20

STRING = 8
ARRAY = 9
SCALARS: Mapping[int, str] = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
"""Each plain value in ``struct``'s and NumPy's letters, by GGUF's number for its type."""


class HeaderReader:
    """The beginning of a file, read as it is asked for, up to ``MAX_HEADER_BYTES``.

    Every method raises FormatError where the file is cut short, or claims more than the bounds.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.offset: int = 0
        """Bytes taken so far."""
        self._strings = 0
        self._file = file
        self._buffer = bytearray()

    def damage(self, fault: str) -> FormatError:
        """Return the error that says what is wrong with the file."""
        return FormatError(f"{self.path} is damaged: {fault}", hint=DOWNLOAD_AGAIN)

    def take(self, nbytes: int) -> bytearray:
        """Return the next ``nbytes`` bytes."""
        end = self.offset + nbytes
        if end > MAX_HEADER_BYTES:
            raise self.damage(
                f"its header claims {end} bytes or more; at most {MAX_HEADER_BYTES} are read"
            )
        while len(self._buffer) < end:
            more = self._file.read(max(READ_BYTES, end - len(self._buffer)))
            if not more:
                raise FormatError(
                    f"{self.path} is cut short: its header goes on past its end",
                    hint=DOWNLOAD_AGAIN,
                )
            self._buffer += more
        content = self._buffer[self.offset : end]
        self.offset = end
        return content

    def uint32(self) -> int:
        """Return the next number of four bytes."""
        return int.from_bytes(self.take(4), "little")

    def uint64(self) -> int:
        """Return the next number of eight bytes."""
        return int.from_bytes(self.take(8), "little")

    def count(self, limit: int, noun: str) -> int:
        """Return the next number of eight bytes, which counts something."""
        number = self.uint64()
        if number > limit:
            raise self.damage(f"it claims {number} {noun}; the maximum is {limit}")
        return number

    def text(self, limit: int, noun: str) -> str:
        """Return the next text, of at most ``limit`` bytes."""
        content = self.take(self.count(limit, f"bytes for {noun}"))
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.damage(f"{noun} is not UTF-8") from error

    def value(self, key: str) -> Any:
        """Return the next type and value: a number, a flag, a text, or an array of one of these.

        Arrays of texts are lists, others are NumPy's. No model needs an array of arrays.
        """
        kind = self.uint32()
        if kind == STRING:
            return self.text(MAX_HEADER_BYTES, quoted(key))
        if kind == ARRAY:
            return self._array(key)
        return self._scalars(kind, 1, key).tolist()[0]

    def _array(self, key: str) -> Any:
        kind = self.uint32()
        length = self.count(MAX_HEADER_BYTES, f"values for {quoted(key)}")
        if kind != STRING:
            return self._scalars(kind, length, key)
        # a text of no bytes takes eight: without a bound on their number, 64 MB would make
        # millions of objects
        self._strings += length
        if self._strings > MAX_STRINGS:
            raise self.damage(f"it claims {self._strings} texts; the maximum is {MAX_STRINGS}")
        noun = quoted(key)
        return [self.text(MAX_HEADER_BYTES, noun) for _ in range(length)]

    def _scalars(self, kind: int, length: int, key: str) -> npt.NDArray[Any]:
        form = SCALARS.get(kind)
        if form is None:
            raise self.damage(f"{quoted(key)} has a value of the unknown type {kind}")
        return np.frombuffer(self.take(length * struct.calcsize(form)), form)

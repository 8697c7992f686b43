"""A GGUF file written whole or not at all.

The gguf library writes under the final name, one tensor after the other; here the file's bytes are
made for ``write_file``, which puts it in place when it is whole, each piece while the one before is
written. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.converters.gguf.blocks.sizes import number_of, type_of
from edgellm.converters.gguf.header import ALIGNMENT
from edgellm.converters.gguf.header_reader import ARRAY, SCALARS, STRING
from edgellm.converters.tensors.file_rows import GGUF_MAGIC, begins_with, made_ahead
from edgellm.errors import ConversionError
from edgellm.files.atomic import Data, write_unhashed
from edgellm.files.refusals import write_error

VERSION = 3

TYPE_NUMBERS = {form[-1]: number for number, form in SCALARS.items()}
"""GGUF's number for each of ``struct``'s and NumPy's letters."""


@dataclass(frozen=True, slots=True)
class GgufOutput:
    """One tensor to be written.

    Attributes:
        name: GGUF's.
        kind: its type as ggml calls it.
        shape: in NumPy's order, rows first.
        pieces: yields its bytes when its turn comes.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    pieces: Callable[[], Iterable[Data]]

    @property
    def nbytes(self) -> int:
        """Bytes, from type and shape."""
        _, block, block_bytes = type_of(number_of(self.kind))
        return prod(self.shape) // block * block_bytes


def write_gguf(
    path: Path, metadata: Mapping[str, Any], tensors: Sequence[GgufOutput], *, replace: bool
) -> int:
    """Write a file of version 3; return its bytes.

    Args:
        path: the file to be made.
        metadata: texts, flags, numbers (whole ones as uint32, others as float32), lists of texts,
            NumPy arrays.
        tensors: in the order in which they are written.
        replace: whether a file that is there, or has come meanwhile, is replaced.

    Raises:
        ConversionError: the disk is full or refuses; nothing is left behind.
    """
    pieces = made_ahead(_file_pieces(metadata, tensors))
    return write_unhashed(path, _unless_taken(path, pieces, replace=replace))


def require_free(path: Path, *, replace: bool) -> None:
    """Raise ConversionError unless there is no file, or one of GGUF that may go."""
    try:
        if path.is_dir():
            raise ConversionError(f"{path} is a folder", hint="name a file that ends in .gguf")
        taken = path.exists()
    except OSError as error:
        raise write_error(path, error) from error
    if taken and not replace:
        raise _already_exists(path)
    if taken and not begins_with(path, GGUF_MAGIC):
        raise ConversionError(
            f"{path} is not a GGUF file, and will not be replaced", hint="name another file"
        )


def _already_exists(path: Path) -> ConversionError:
    """Return the refusal of a destination that is taken."""
    return ConversionError(
        f"{path} already exists", hint="name another one, or replace it with --force"
    )


def _unless_taken(path: Path, pieces: Iterator[Data], *, replace: bool) -> Iterator[Data]:
    """Yield all pieces, and raise ConversionError if a file has come meanwhile."""
    yield from pieces
    if not replace and os.path.lexists(path):
        raise _already_exists(path)


def _file_pieces(metadata: Mapping[str, Any], tensors: Sequence[GgufOutput]) -> Iterator[Data]:
    header = _header(metadata, tensors)
    yield header + _padding(len(header))
    for tensor in tensors:
        written = 0
        for piece in tensor.pieces():
            written += memoryview(piece).nbytes
            yield piece
        if written != tensor.nbytes:
            raise AssertionError(f"{tensor.name}: {written} bytes given, {tensor.nbytes} declared")
        yield _padding(written)


def _header(metadata: Mapping[str, Any], tensors: Sequence[GgufOutput]) -> bytes:
    header = bytearray(GGUF_MAGIC)
    header += struct.pack("<IQQ", VERSION, len(tensors), len(metadata))
    for key, value in metadata.items():
        header += _text(key) + _value(value)
    offset = 0
    for tensor in tensors:
        rank = len(tensor.shape)
        header += _text(tensor.name)
        header += struct.pack(f"<I{rank}Q", rank, *tensor.shape[::-1])
        header += struct.pack("<IQ", number_of(tensor.kind), offset)
        offset += tensor.nbytes + len(_padding(tensor.nbytes))
    return bytes(header)


def _padding(nbytes: int) -> bytes:
    """Return the zeros that bring ``nbytes`` to the alignment."""
    return bytes(-nbytes % ALIGNMENT)


def _text(text: str) -> bytes:
    content = text.encode()
    return struct.pack("<Q", len(content)) + content


def _value(value: Any) -> bytes:
    """Return a value with its type before it."""
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _text(value)
    if isinstance(value, list):
        return struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(_text, value))
    if isinstance(value, np.ndarray):
        kind = TYPE_NUMBERS[value.dtype.char]
        return struct.pack("<IIQ", ARRAY, kind, len(value)) + value.tobytes()
    letter = "f"
    if isinstance(value, bool):
        letter = "?"
    elif isinstance(value, int):
        letter = "I"
    return struct.pack(f"<I{letter}", TYPE_NUMBERS[letter], value)

"""A GGUF file written whole or not at all.

The gguf library writes to a file of its own, under the final name; here the header's bytes are made
for ``write_file``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.converters.gguf.header import ALIGNMENT, ARRAY, MAGIC, SCALARS, STRING
from edgellm.files.atomic import Data, FileRecord, write_file

VERSION = 3
NUMBERS = {form[-1]: number for number, form in SCALARS.items()}
"""GGUF's number for each of ``struct``'s and NumPy's letters."""


@dataclass(frozen=True, slots=True)
class GgufOutput:
    """One tensor to be written: ``pieces`` yields its bytes when its turn comes."""

    name: str
    kind: str
    shape: tuple[int, ...]
    pieces: Callable[[], Iterable[Data]]

    @property
    def nbytes(self) -> int:
        """Bytes, from type and shape."""
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[self.kind]]
        return prod(self.shape) // int(block) * int(block_bytes)


def write_gguf(
    path: Path, metadata: Mapping[str, Any], tensors: Sequence[GgufOutput]
) -> FileRecord:
    """Write a file of version 3.

    Args:
        path: the file to be made.
        metadata: texts, flags, numbers (whole ones as uint32, others as float32), lists of texts,
            NumPy arrays.
        tensors: in the order in which they are written.

    Raises:
        ConversionError: the disk is full or refuses; nothing is left behind.
    """
    return write_file(path, _ahead(_pieces(metadata, tensors)))


def _ahead(pieces: Iterator[Data]) -> Iterator[Data]:
    """The same pieces, each made in a thread while the one before it is written."""
    with ThreadPoolExecutor(1) as pool:
        piece = pool.submit(next, pieces, None)
        while (made := piece.result()) is not None:
            piece = pool.submit(next, pieces, None)
            yield made


def _pieces(metadata: Mapping[str, Any], tensors: Sequence[GgufOutput]) -> Iterator[Data]:
    from gguf.constants import GGMLQuantizationType

    header = bytearray(MAGIC + struct.pack("<IQQ", VERSION, len(tensors), len(metadata)))
    for key, value in metadata.items():
        header += _text(key) + _value(value)
    offset = 0
    for tensor in tensors:
        axes = tensor.shape[::-1]
        header += _text(tensor.name) + struct.pack(f"<I{len(axes)}Q", len(axes), *axes)
        header += struct.pack("<IQ", GGMLQuantizationType[tensor.kind].value, offset)
        offset += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
    yield bytes(header) + bytes(-len(header) % ALIGNMENT)
    for tensor in tensors:
        written = 0
        for piece in tensor.pieces():
            written += piece.nbytes if isinstance(piece, memoryview | np.ndarray) else len(piece)
            yield piece
        if written != tensor.nbytes:
            raise AssertionError(f"{tensor.name}: {written} bytes given, {tensor.nbytes} declared")
        yield bytes(-written % ALIGNMENT)


def _text(text: str) -> bytes:
    content = text.encode()
    return struct.pack("<Q", len(content)) + content


def _value(value: Any) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _text(value)
    if isinstance(value, list):
        return struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(_text, value))
    if isinstance(value, np.ndarray):
        return struct.pack("<IIQ", ARRAY, NUMBERS[value.dtype.char], len(value)) + value.tobytes()
    letter = "?" if isinstance(value, bool) else "I" if isinstance(value, int) else "f"
    return struct.pack(f"<I{letter}", NUMBERS[letter], value)

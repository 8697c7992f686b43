"""bitsandbytes: four bits through a table (nf4, fp4), or int8 with the largest value a row.

Four bits: ``weight`` holds the weights of the flattened matrix, two a byte, the first in the high
half; ``weight.absmax`` the largest size a block, itself in bytes through a table where it is
nested; ``weight.quant_map`` the 16 values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgellm.checkpoint.quantization import Quantization
from edgellm.converters.quantizers.packed_matrix import (
    REQUANTIZED,
    PackedFolder,
    PackedMatrix,
    Tensors,
)
from edgellm.converters.quantizers.scaled_matrix import ScaledMatrix
from edgellm.converters.tensors.floats import Floats
from edgellm.converters.tensors.source import Bytes, Source
from edgellm.errors import FormatError
from edgellm.files.strict_json import parse_json, quoted

STATE = "weight.quant_state.bitsandbytes__"
KINDS = ("nf4", "fp4")
PARTS = (
    "weight",
    "weight.absmax",
    "weight.quant_map",
    "weight.nested_absmax",
    "weight.nested_quant_map",
    *(STATE + kind for kind in KINDS),
)
INT8_PARTS = ("weight", "SCB", "weight_format")
LARGEST = 127.0
MAX_STATE_BYTES = 1 << 16
STORAGE = ("U8", "BF16", "F16", "F32")
"""Types in which the bytes are stored; they mean nothing."""


class TableMatrix:
    """A matrix of four-bit indexes into a table, each times its block's size."""

    kept: Quantization | None = None
    wished = REQUANTIZED

    def __init__(self, tensors: Tensors, path: str, kind: str) -> None:
        self._tensors = tensors
        self._path = path
        said = f"{path}.{STATE}{kind}"
        if tensors.nbytes(said, ["U8"]) > MAX_STATE_BYTES:
            raise self._damaged("its state is longer than any")
        state = parse_json(tensors.raw(said).tobytes(), f"the state of {quoted(path)}")
        match state:
            case {"shape": [int(outputs), int(inputs)], "blocksize": int(size)} if (
                outputs > 0 and inputs > 0 and inputs % 2 == 0 and size > 0
            ):
                self.shape: tuple[int, int] = (outputs, inputs)
                self._size = size
            case _:
                raise self._damaged("its state names no shape")
        count = outputs * inputs
        if count > 1 << 62 or tensors.nbytes(f"{path}.weight", STORAGE) != count // 2:
            raise self._damaged("it has other bytes than its shape needs")
        blocks = -(-count // size)
        tensors.expect(f"{path}.weight.quant_map", ["F32"], (16,))
        self._is_nested = f"{path}.weight.nested_absmax" in tensors
        if not self._is_nested:
            tensors.expect(f"{path}.weight.absmax", ["F32"], (blocks,))
            return
        match state:
            case {"nested_blocksize": int(nested), "nested_offset": float(offset)} if nested > 0:
                self._nested = nested
                self._offset = np.float32(offset)
            case _:
                raise self._damaged("its state names no nested blocks")
        tensors.expect(f"{path}.weight.absmax", ["U8"], (blocks,))
        tensors.expect(f"{path}.weight.nested_absmax", ["F32"], (-(-blocks // nested),))
        tensors.expect(f"{path}.weight.nested_quant_map", ["F32"], (256,))

    def part(self, part: str, start: int, stop: int) -> Floats:
        """Return rows of the matrix."""
        del part  # there is only one
        first, last = start * self.shape[1], stop * self.shape[1]
        codes = self._bytes(first // 2, last // 2)
        indexes = np.empty((len(codes), 2), np.uint8)
        indexes[:, 0], indexes[:, 1] = codes >> 4, codes & 15
        values = self._tensors.numbers(f"{self._path}.weight.quant_map")[indexes.reshape(-1)]
        begin = first // self._size
        sizes = self._sizes(begin, -(-last // self._size))
        values *= np.repeat(sizes, self._size)[first - begin * self._size :][: last - first]
        return values.reshape(stop - start, -1)

    def _bytes(self, start: int, stop: int) -> Bytes:
        """Return bytes of the indexes, whatever type they are stored as."""
        name = f"{self._path}.weight"
        per_row = self._tensors.row_bytes(name)
        begin = start // per_row
        content = self._tensors.raw(name, begin, -(-stop // per_row)).view(np.uint8)
        return content[start - begin * per_row :][: stop - start]

    def _sizes(self, start: int, stop: int) -> Floats:
        """Return the largest sizes of some blocks."""
        name = f"{self._path}.weight.absmax"
        if not self._is_nested:
            return self._tensors.numbers(name, start, stop)
        table = self._tensors.numbers(f"{self._path}.weight.nested_quant_map")
        nested = self._tensors.numbers(f"{self._path}.weight.nested_absmax")
        sizes = table[self._tensors.raw(name, start, stop)]
        sizes *= nested[np.arange(start, stop) // self._nested]
        sizes += self._offset
        return sizes

    def _damaged(self, fault: str) -> FormatError:
        return FormatError(f"{quoted(self._path)}: {fault}", hint="download the model again")


def read_bitsandbytes(source: Source, block: Mapping[str, Any]) -> PackedFolder:
    """Find the matrices of bitsandbytes; the tensors say all.

    Raises:
        FormatError: a tensor is missing, or of another type or shape.
    """
    del block
    tensors = Tensors(source)
    matrices: dict[str, PackedMatrix] = {
        path: TableMatrix(tensors, path, kind)
        for kind in KINDS
        for path in tensors.paths(STATE + kind)
    }
    integers = tensors.paths("SCB")
    matrices |= {
        path: ScaledMatrix(tensors, path, f"{path}.SCB", divisor=LARGEST) for path in integers
    }
    consumed = {f"{path}.{part}" for path in matrices for part in PARTS}
    consumed |= {f"{path}.{part}" for path in integers for part in INT8_PARTS}
    return PackedFolder(matrices, frozenset(consumed))

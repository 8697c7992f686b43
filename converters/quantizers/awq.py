"""AWQ: codes packed along the outputs, eight a word and interleaved; zero points alike.

Of a matrix of O outputs and I inputs: ``qweight`` (I, O / 8), ``qzeros`` (G, O / 8), ``scales``
(G, O). A weight is scale * (code - zero).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgellm.checkpoint.quantization import FLOATS, Quantization
from edgellm.converters.quantizers.packed_matrix import (
    REQUANTIZED,
    PackedFolder,
    Tensors,
    Words,
    affine_form,
    refuse,
    spread,
    whole_number,
)
from edgellm.converters.tensors.bit_packing import pack, unpack
from edgellm.converters.tensors.floats import Floats
from edgellm.converters.tensors.source import Bytes, Source
from edgellm.errors import FormatError
from edgellm.files.strict_json import quoted

BITS = 4
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""The output that each four bits of a word belong to, from the lowest on."""

PARTS = ("qweight", "qzeros", "scales")
BLOCK = 256
"""Inputs that are turned at once."""


class AwqMatrix:
    """A matrix of AWQ's (``gemm``)."""

    def __init__(self, tensors: Tensors, path: str, group_size: int) -> None:
        self._tensors = tensors
        self._path = path
        inputs, words = tensors.shape(f"{path}.qweight", ["I32"], 2)
        outputs = words * len(ORDER)
        self.shape: tuple[int, int] = (outputs, inputs)
        self._group = group_size
        if group_size == -1:
            self._group = inputs
        if self._group < 1 or inputs % self._group or inputs % 2:
            raise FormatError(
                f"{quoted(path)} has {inputs} inputs, no whole groups of {group_size}",
                hint="download the model again",
            )
        groups = inputs // self._group
        tensors.expect(f"{path}.qzeros", ["I32"], (groups, words))
        tensors.expect(f"{path}.scales", FLOATS, (groups, outputs))
        self.kept: Quantization | None = affine_form(BITS, self._group, inputs)
        self.wished: Quantization = self.kept or REQUANTIZED
        self._turned: Bytes | None = None

    def part(self, part: str, start: int, stop: int) -> Floats | Bytes:
        """Return rows of codes, scales and biases, or of the numbers that they make."""
        if part == "weight" and self.kept is not None:
            return self._codes(start, stop)
        scales = self._tensors.numbers(f"{self._path}.scales")[:, start:stop].T
        if part == "scales" and self.kept is not None:
            return spread(scales, self._group, self.kept, self.shape[1])
        zeros = _codes(self._tensors.words(f"{self._path}.qzeros"))
        zeros = zeros[:, start:stop].T.astype(np.float32)
        if self.kept is not None:
            return spread(-scales * zeros, self._group, self.kept, self.shape[1])
        values = unpack(self._codes(start, stop), BITS).astype(np.float32)
        values -= np.repeat(zeros, self._group, axis=1)
        values *= np.repeat(scales, self._group, axis=1)
        return values

    def _codes(self, start: int, stop: int) -> Bytes:
        """Return rows of packed codes; the turned matrix is held until its last row was taken."""
        turned = self._turned
        if turned is None:
            outputs, inputs = self.shape
            words = self._tensors.words(f"{self._path}.qweight")
            turned = np.empty((outputs, inputs // 2), np.uint8)
            for first in range(0, inputs, BLOCK):
                codes = np.ascontiguousarray(_codes(words[first : first + BLOCK]).T)
                turned[:, first // 2 : (first + BLOCK) // 2] = pack(codes, BITS)
        self._turned = turned
        if stop == self.shape[0]:
            self._turned = None
        return turned[start:stop]


def _codes(words: Words) -> Bytes:
    """Return the codes (..., O) of words (..., O / 8)."""
    codes = np.empty((*words.shape, len(ORDER)), np.uint8)
    for place, output in enumerate(ORDER):
        codes[..., output] = words >> np.uint32(BITS * place) & np.uint32(15)
    return codes.reshape(len(words), -1)


def read_awq(source: Source, block: Mapping[str, Any]) -> PackedFolder:
    """Find AWQ's matrices.

    Raises:
        FormatError: a tensor is missing, or of another type or shape.
        UnsupportedModelError: another layout, or other bits.
    """
    layout = block.get("version", block.get("format", "gemm"))
    if not isinstance(layout, str) or layout.lower() != "gemm":
        refuse(f"the model is in AWQ's layout {quoted(layout)}")
    bits = block.get("bits", block.get("w_bit", BITS))
    if bits != BITS:
        refuse(f"the model has {quoted(bits)} bits in AWQ's layout")
    key = "group_size"
    if key not in block and "q_group_size" in block:
        key = "q_group_size"
    group_size = whole_number(block, key, 128)
    tensors = Tensors(source)
    matrices = {path: AwqMatrix(tensors, path, group_size) for path in tensors.paths("qweight")}
    consumed = frozenset(f"{path}.{part}" for path in matrices for part in PARTS)
    return PackedFolder(matrices, consumed)

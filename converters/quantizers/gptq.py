"""GPTQ: codes packed along the inputs, zero points along the outputs, scales by group.

Of a matrix of O outputs and I inputs: ``qweight`` (I * bits / 32, O), ``qzeros``
(G, O * bits / 32), ``scales`` (G, O), and ``g_idx`` (I,): each input's group. A weight is
scale * (code - zero). Version 1 stores zeros less one, subtracted from whole words.
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
    fields,
    refuse,
    spread,
    whole_number,
)
from edgellm.converters.tensors.floats import Floats
from edgellm.converters.tensors.source import Bytes, Source
from edgellm.errors import FormatError
from edgellm.files.strict_json import quoted

PARTS = ("qweight", "qzeros", "scales", "g_idx")
BITS = (2, 3, 4, 8)
VERSIONS = ("gptq", "gptq_v2")


class GptqMatrix:
    """A matrix of GPTQ's; its codes, turned, are MLX's own."""

    def __init__(self, tensors: Tensors, path: str, group_size: int, *, version: str) -> None:
        self._tensors = tensors
        self._path = path
        self._version = version
        packed, outputs = tensors.shape(f"{path}.qweight", ["I32"], 2)
        groups, zeros = tensors.shape(f"{path}.qzeros", ["I32"], 2)
        self._bits = zeros * 32 // outputs
        if self._bits not in BITS or zeros * 32 != outputs * self._bits or packed * 32 % self._bits:
            raise FormatError(
                f"{quoted(path)} is packed to no whole number of bits",
                hint="download the model again",
            )
        if self._bits == 3 and version == "gptq":
            # AutoGPTQ adds one to each zero, GPTQModel 4.2 other constants to the words
            refuse(f"{quoted(path)} has 3 bits in GPTQ's first version, read in two ways")
        inputs = packed * 32 // self._bits
        self.shape: tuple[int, int] = (outputs, inputs)
        tensors.expect(f"{path}.scales", FLOATS, (groups, outputs))
        self._group = group_size
        if group_size < 1 or -(-inputs // group_size) != groups:
            self._group = -(-inputs // groups)  # one matrix may have another group than most
        self._order = tensors.order(f"{path}.g_idx", inputs, groups, self._group)
        self.kept: Quantization | None = None
        if self._order is None:
            self.kept = affine_form(self._bits, self._group, inputs)
        self.wished: Quantization = self.kept or REQUANTIZED
        self._turned: Words | None = None

    @property
    def is_reordered(self) -> bool:
        """Whether inputs of one group do not stand side by side (``desc_act``)."""
        return self._order is not None

    def part(self, part: str, start: int, stop: int) -> Floats | Bytes:
        """Return rows of codes, scales and biases, or of the numbers that they make."""
        if self.kept is None:
            return self._values(start, stop)
        if part == "weight":
            return np.ascontiguousarray(self._codes(start, stop)).view(np.uint8)
        numbers = self._scales(start, stop)
        if part == "biases":
            numbers = -numbers * self._zeros(start, stop)
        return spread(numbers, self._group, self.kept, self.shape[1])

    def _values(self, start: int, stop: int) -> Floats:
        groups = self._order
        if groups is None:
            groups = (np.arange(self.shape[1]) // self._group).astype(np.uint32)
        codes = fields(self._codes(start, stop), self._bits).astype(np.float32)
        codes -= self._zeros(start, stop)[:, groups]
        codes *= self._scales(start, stop)[:, groups]
        return codes

    def _codes(self, start: int, stop: int) -> Words:
        """Return rows of packed codes; the turned matrix is held until its last row was taken."""
        turned = self._turned
        if turned is None:
            turned = np.ascontiguousarray(self._tensors.words(f"{self._path}.qweight").T)
        self._turned = turned
        if stop == self.shape[0]:
            self._turned = None
        return turned[start:stop]

    def _scales(self, start: int, stop: int) -> Floats:
        return self._tensors.numbers(f"{self._path}.scales")[:, start:stop].T

    def _zeros(self, start: int, stop: int) -> Floats:
        words = self._tensors.words(f"{self._path}.qzeros")
        if self._version == "gptq":
            words = words + np.uint32(sum(1 << place for place in range(0, 32, self._bits)))
        return fields(words, self._bits)[:, start:stop].T.astype(np.float32)


def read_gptq(source: Source, block: Mapping[str, Any]) -> PackedFolder:
    """Find GPTQ's matrices.

    Raises:
        FormatError: a tensor is missing, or of another type or shape.
        UnsupportedModelError: another version of the format.
    """
    version = block.get("checkpoint_format", block.get("format", "gptq"))
    if version not in VERSIONS:
        refuse(f"the model is in GPTQ's form {quoted(version)}")
    group_size = whole_number(block, "group_size", -1)
    tensors = Tensors(source)
    matrices = {
        path: GptqMatrix(tensors, path, group_size, version=version)
        for path in tensors.paths("qweight")
    }
    if block.get("desc_act") is True and not all(f"{path}.g_idx" in tensors for path in matrices):
        refuse("the model says desc_act and holds no g_idx")
    consumed = frozenset(f"{path}.{part}" for path in matrices for part in PARTS)
    reordered = sum(matrix.is_reordered for matrix in matrices.values())
    notes = []
    if reordered:
        notes.append(
            f"{reordered} matrices are in GPTQ's activation order (desc_act), which MLX cannot say"
        )
    return PackedFolder(matrices, consumed, notes)

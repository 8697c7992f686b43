"""compressed-tensors (llm-compressor): packed integers, int8, float8, four-bit floats.

Of a matrix of O outputs and I inputs, packed: ``weight_packed`` (O, I * bits / 32), each signed
value raised by half the range, ``weight_scale`` (O, G), ``weight_zero_point`` (O * bits / 32, G),
``weight_shape``, and ``weight_g_idx`` (I,) in activation order. Others have one byte a weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgellm.checkpoint.quantization import AFFINE_BITS, FLOATS, Quantization
from edgellm.converters.quantizers.float4_matrix import Float4Matrix
from edgellm.converters.quantizers.packed_matrix import (
    REQUANTIZED,
    PackedFolder,
    PackedMatrix,
    Tensors,
    Words,
    affine_form,
    fields,
    refuse,
    spread,
)
from edgellm.converters.quantizers.scaled_matrix import ScaledMatrix
from edgellm.converters.tensors.floats import Floats
from edgellm.converters.tensors.source import Bytes, Source
from edgellm.errors import FormatError
from edgellm.files.strict_json import quoted

FORMATS = (
    "pack-quantized",
    "int-quantized",
    "float-quantized",
    "naive-quantized",
    "mixed-precision",
    "nvfp4-pack-quantized",
    "mxfp4-pack-quantized",
    "mxfp8-quantized",
)
PACKED = (
    "weight_packed",
    "weight_scale",
    "weight_zero_point",
    "weight_shape",
    "weight_g_idx",
    "weight_global_scale",
)
ACTIVATIONS = (
    *("input_scale", "input_zero_point", "input_global_scale", "output_scale"),
    *("k_scale", "v_scale", "q_scale", "k_global_scale", "v_global_scale", "q_global_scale"),
)
"""Parts that tell how activations or the KV cache were rounded, which they are not here."""


class PackedIntegers:
    """A matrix of integers packed as MLX packs its own."""

    def __init__(self, tensors: Tensors, path: str) -> None:
        self._tensors = tensors
        self._path = path
        outputs, words = tensors.shape(f"{path}.weight_packed", ["I32"], 2)
        tensors.expect(f"{path}.weight_shape", ["I64", "I32"], (2,))
        kind = {"I64": "<i8", "I32": "<i4"}[tensors.dtype(f"{path}.weight_shape")]
        rows, inputs = map(int, tensors.raw(f"{path}.weight_shape").view(kind))
        bits = 0
        if rows == outputs and 0 < inputs < 1 << 31:
            bits = words * 32 // inputs
        if bits not in AFFINE_BITS or inputs * bits != words * 32:
            refuse(f"{quoted(path)} is packed with {words} words for {inputs} weights")
        self.shape: tuple[int, int] = (outputs, inputs)
        self._bits = bits
        groups = tensors.shape(f"{path}.weight_scale", FLOATS, 2)[1]
        tensors.expect(f"{path}.weight_scale", FLOATS, (outputs, groups))
        if inputs % groups:
            raise FormatError(
                f"{quoted(path)} has {groups} scales for {inputs} weights, no whole groups",
                hint="download the model again",
            )
        self._group = inputs // groups
        self._has_zeros = f"{path}.weight_zero_point" in tensors
        if self._has_zeros:
            packed = -(-outputs * bits // 32)
            tensors.expect(f"{path}.weight_zero_point", ["I32"], (packed, groups))
        self._order = tensors.order(f"{path}.weight_g_idx", inputs, groups, self._group)
        self.kept: Quantization | None = None
        if self._order is None:
            self.kept = affine_form(bits, self._group, inputs)
        self.wished: Quantization = self.kept or REQUANTIZED

    def part(self, part: str, start: int, stop: int) -> Floats | Bytes:
        """Return rows of codes, scales and biases, or of the numbers that they make."""
        codes = self._tensors.raw(f"{self._path}.weight_packed", start, stop)
        codes = codes.reshape(stop - start, -1)
        if self.kept is not None and part == "weight":
            return codes
        scales = self._tensors.numbers(f"{self._path}.weight_scale", start, stop)
        if self.kept is not None:
            if part == "biases":
                scales = -scales * self._zeros(start, stop)
            return spread(scales, self._group, self.kept, self.shape[1])
        groups = self._order
        if groups is None:
            groups = (np.arange(self.shape[1]) // self._group).astype(np.uint32)
        values = fields(codes.view("<u4"), self._bits).astype(np.float32)
        values -= self._zeros(start, stop)[:, groups]
        values *= scales[:, groups]
        return values

    def _zeros(self, start: int, stop: int) -> Floats:
        """Return the codes that mean zero, shape (rows, G)."""
        if not self._has_zeros:
            groups = self.shape[1] // self._group
            return np.full((stop - start, groups), 1 << self._bits - 1, np.float32)
        words: Words = self._tensors.words(f"{self._path}.weight_zero_point").T
        whole = -words.shape[1] % self._bits  # words that bits of three and six cross
        padded = np.pad(words, ((0, 0), (0, whole)))
        return fields(padded, self._bits)[:, start:stop].T.astype(np.float32)


def read_compressed_tensors(source: Source, block: Mapping[str, Any]) -> PackedFolder:
    """Find the matrices of compressed-tensors.

    Raises:
        FormatError: a tensor is missing, or of another type or shape.
        UnsupportedModelError: another of its formats, sparse matrices, or integers with zero
            points that are not packed.
    """
    form = block.get("format")
    if form not in FORMATS:
        refuse(f"the model is in the form {quoted(form)} of compressed-tensors")
    sparsity = block.get("sparsity_config")
    if isinstance(sparsity, Mapping) and sparsity.get("format", "dense") != "dense":
        refuse("the model's matrices are sparse (compressed-tensors)")
    tensors = Tensors(source)
    matrices: dict[str, PackedMatrix] = {}
    for path in tensors.paths("weight_scale"):
        if f"{path}.weight_packed" not in tensors:
            matrices[path] = _bytes_matrix(tensors, path, block)
        elif tensors.dtype(f"{path}.weight_packed") == "U8":
            matrices[path] = Float4Matrix(tensors, path)
        else:
            matrices[path] = PackedIntegers(tensors, path)
    consumed = {f"{path}.{part}" for path in matrices for part in ("weight", *PACKED)}
    activations = {f"{path}.{part}" for part in ACTIVATIONS for path in tensors.paths(part)}
    notes = ["activations, which were rounded when the model was made, are not rounded here"]
    return PackedFolder(matrices, frozenset(consumed | activations), notes[: bool(activations)])


def _bytes_matrix(tensors: Tensors, path: str, block: Mapping[str, Any]) -> PackedMatrix:
    if f"{path}.weight_zero_point" in tensors:
        refuse(f"{quoted(path)} has zero points beside bytes")
    return ScaledMatrix(tensors, path, f"{path}.weight_scale", block=_block_structure(block))


def _block_structure(block: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the first block size that the config names; None: it names none."""
    groups = block.get("config_groups")
    if isinstance(groups, Mapping):
        for group in groups.values():
            match group:
                case {"weights": {"block_structure": [int(rows), int(columns)]}}:
                    return (rows, columns)
    return None

"""Matrices of four-bit floats: compressed-tensors' NVFP4 and MXFP4, as MLX packs its own.

Of a matrix of O outputs and I inputs: ``weight_packed`` (O, I / 2) bytes, the first of two codes in
the low half; ``weight_scale`` (O, I / 16) float8 or (O, I / 32) powers of two; and NVFP4's
``weight_global_scale``, by which all scales are divided.
"""

from __future__ import annotations

import numpy as np

from edgellm.checkpoint.quantization import Quantization
from edgellm.converters.quantizers.packed_matrix import Tensors, refuse
from edgellm.converters.quantizers.scaled_matrix import float8_values, powers_of_two
from edgellm.converters.tensors.bit_packing import unpack
from edgellm.converters.tensors.floats import Floats
from edgellm.converters.tensors.source import Bytes
from edgellm.errors import FormatError
from edgellm.files.strict_json import quoted

NVFP4 = Quantization(4, 16, "nvfp4")
MXFP4 = Quantization(4, 32, "mxfp4")
SCALE_DTYPES = {"F8_E4M3": NVFP4, "U8": MXFP4, "F8_E8M0": MXFP4}

RESCALED = Quantization(8, 32)
"""What becomes of a matrix with a factor of its own, which MLX's modes do not have."""

VALUES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
FLOAT4 = np.concatenate([VALUES, -VALUES])


class Float4Matrix:
    """A matrix of four-bit floats (e2m1)."""

    def __init__(self, tensors: Tensors, path: str) -> None:
        self._tensors = tensors
        self._path = path
        outputs, pairs = tensors.shape(f"{path}.weight_packed", ["U8"], 2)
        self.shape: tuple[int, int] = (outputs, 2 * pairs)
        scale = f"{path}.weight_scale"
        tensors.shape(scale, list(SCALE_DTYPES), 2)
        form = SCALE_DTYPES[tensors.dtype(scale)]
        self._group = form.group_size
        if self.shape[1] % self._group:
            raise FormatError(
                f"{quoted(path)} has {self.shape[1]} inputs, no whole groups of {self._group}",
                hint="download the model again",
            )
        tensors.expect(scale, list(SCALE_DTYPES), (outputs, self.shape[1] // self._group))
        if f"{path}.weight_zero_point" in tensors:
            refuse(f"{quoted(path)} has zero points beside four-bit floats")
        self._divisor = np.float32(1)
        if f"{path}.weight_global_scale" in tensors:
            self._divisor = self._global_scale()
        self.kept: Quantization | None = None
        if self._divisor == 1:
            self.kept = form
        self.wished: Quantization = self.kept or RESCALED

    def _global_scale(self) -> np.float32:
        name = f"{self._path}.weight_global_scale"
        if self._tensors.any_shape(name, ["F32"]) not in ((), (1,)):
            raise FormatError(
                f"tensor {quoted(name)} is more than one number", hint="download the model again"
            )
        divisor = self._tensors.numbers(name).reshape(-1)[0]
        if divisor == 0:
            raise FormatError(f"tensor {quoted(name)} is 0", hint="download the model again")
        return np.float32(divisor)

    def part(self, part: str, start: int, stop: int) -> Floats | Bytes:
        """Return rows of codes and scales, or of the numbers that they make."""
        if self.kept is not None:
            name = {"weight": "weight_packed", "scales": "weight_scale"}[part]
            return self._tensors.raw(f"{self._path}.{name}", start, stop)
        codes = self._tensors.raw(f"{self._path}.weight_packed", start, stop)
        values = FLOAT4[unpack(codes.reshape(stop - start, -1), 4)]
        scales = self._scales(start, stop) / self._divisor
        values *= np.repeat(scales, self._group, axis=1)
        return values

    def _scales(self, start: int, stop: int) -> Floats:
        name = f"{self._path}.weight_scale"
        content = self._tensors.raw(name, start, stop).reshape(stop - start, -1)
        if self._tensors.dtype(name) == "F8_E4M3":
            return float8_values()[content]
        return powers_of_two(content)

"""One tensor of a model folder as llama.cpp's blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.quantization import Quantization
from edgellm.checkpoint.safetensors_file import DTYPE_BYTES
from edgellm.converters.gguf.block_types import GROUP, join_q4_1, join_q5_1, join_q8_0
from edgellm.converters.tensors.bit_packing import affine_values
from edgellm.converters.tensors.floats import floats
from edgellm.converters.tensors.rope_permutation import pairs_from_halves
from edgellm.converters.tensors.source import Bytes, Source
from edgellm.converters.tensors.weight_stream import MLX_TYPES, dequantize
from edgellm.errors import ConversionError

PIECE_VALUES = 1 << 22
"""Weights that are in work at once: 16 MB as float32."""

KINDS: Mapping[int, str] = {4: "Q4_1", 5: "Q5_1", 8: "Q8_0"}
"""The block type that has the codes of each number of bits."""


@dataclass(slots=True)
class GgufMatrix:
    """A tensor on its way out.

    Attributes:
        source: the model.
        path: the tensor's name without its last part.
        shape: of its unquantized values.
        stored: how the source has it; None: unquantized.
        head_dim: rows of a head where llama.cpp wants them in pairs; None: the order stays.
        on_read: called with the bytes of each piece of the source.
        error: once it is written, the root mean square of the change over that of the weights; 0.0:
            there was none.
    """

    source: Source
    path: str
    shape: tuple[int, ...]
    stored: Quantization | None
    head_dim: int | None
    on_read: Callable[[int], None]
    error: float = 0.0
    _sums: list[float] = field(default_factory=lambda: [0.0, 0.0])

    @property
    def kind(self) -> str:
        """What llama.cpp calls its type."""
        if self.stored is None:
            return self.source.tensors[self.path].dtype if len(self.shape) > 1 else "F32"
        return KINDS.get(self.stored.bits, "F16") if self.stored.mode == "affine" else "F16"

    def pieces(self) -> Iterator[Bytes]:
        """The bytes of its blocks.

        Raises:
            ConversionError: a value is too large for float16.
            ReadError: the source cannot be read.
        """
        rows = self.shape[0]
        step = max(1, PIECE_VALUES // math.prod(self.shape[1:]))
        make = self._maker()
        for start in range(0, rows, step):
            yield make(start, min(start + step, rows))
        change, size = self._sums
        self.error = math.sqrt(change / size) if size else 0.0

    def _maker(self) -> Callable[[int, int], Bytes]:
        """What makes some rows' blocks, without a change where the type allows it."""
        form = self.stored
        if form is None:
            return self._plain if len(self.shape) > 1 else self._vector
        if self.kind == "F16":
            return self._dequantized
        scales, biases = (
            self._values(part, 0, self.shape[0], counted=False) for part in ("scales", "biases")
        )
        exact = bool(np.all(_halved(scales, self.path) == scales))
        if form.bits == 8:
            return self._codes if exact and np.all(biases == -128 * scales) else self._rounded
        return (
            self._codes
            if exact and np.all(_halved(biases, self.path) == biases)
            else self._codes_measured
        )

    def _plain(self, start: int, stop: int) -> Bytes:
        return self._rows("", start, stop)

    def _vector(self, start: int, stop: int) -> Bytes:
        return self._values("", start, stop).view(np.uint8)

    def _codes(self, start: int, stop: int) -> Bytes:
        form = self._form
        weight = self._rows("weight", start, stop).reshape(stop - start, -1)
        scales, biases = (
            _halved(self._values(part, start, stop), self.path) for part in ("scales", "biases")
        )
        scales, biases = (
            np.repeat(part, form.group_size // GROUP, axis=1) for part in (scales, biases)
        )
        if form.bits == 8:
            return join_q8_0((weight ^ 0x80).view(np.int8), scales)
        return (join_q4_1 if form.bits == 4 else join_q5_1)(weight, scales, biases)

    def _codes_measured(self, start: int, stop: int) -> Bytes:
        """As ``_codes``, where float16 does not hold every scale."""
        form = self._form
        weight = self._rows("weight", start, stop, counted=False).reshape(stop - start, -1)
        exact = [self._values(part, start, stop, counted=False) for part in ("scales", "biases")]
        rounded = [_halved(part, self.path).astype(np.float32) for part in exact]
        values = affine_values(weight, *exact, bits=form.bits)
        self._measure(affine_values(weight, *rounded, bits=form.bits) - values, values)
        return self._codes(start, stop)

    def _rounded(self, start: int, stop: int) -> Bytes:
        """Eight-bit codes with a scale and no bias, which ``Q8_0`` has not, taken anew from the values."""
        values = self._dequantize(start, stop).reshape(-1, GROUP)
        scales = _halved(np.abs(values).max(axis=1, keepdims=True) / 127, self.path)
        wide = scales.astype(np.float32)
        codes = np.rint(np.divide(values, wide, out=np.zeros_like(values), where=wide > 0)).clip(
            -127, 127
        )
        self._measure(codes * wide - values, values)
        return join_q8_0(codes.astype(np.int8).reshape(stop - start, -1), scales)

    def _dequantized(self, start: int, stop: int) -> Bytes:
        values = self._dequantize(start, stop)
        halves = _halved(values, self.path)
        self._measure(halves.astype(np.float32) - values, values)
        return halves.view(np.uint8).reshape(-1)

    @property
    def _form(self) -> Quantization:
        assert self.stored is not None, "asked of quantized matrices only"
        return self.stored

    def _measure(self, change: npt.NDArray[np.float32], values: npt.NDArray[np.float32]) -> None:
        self._sums[0] += float(np.vdot(change, change))
        self._sums[1] += float(np.vdot(values, values))

    def _dequantize(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        form = self._form
        if form.mode == "affine":
            weight = self._rows("weight", start, stop).reshape(stop - start, -1)
            return affine_values(
                weight,
                *(self._values(part, start, stop) for part in ("scales", "biases")),
                bits=form.bits,
            )
        return np.array(
            dequantize(
                [self._array(part, start, stop) for part in form.stored(1, 128, "F16")], form
            )
        )

    def _array(self, part: str, start: int, stop: int) -> mx.array:
        dtype = self.source.tensors[f"{self.path}.{part}"].dtype
        width = {1: np.uint8, 2: np.uint16, 4: np.uint32}[DTYPE_BYTES[dtype]]
        return mx.array(self._rows(part, start, stop).view(width).reshape(stop - start, -1)).view(
            MLX_TYPES[dtype]
        )

    def _values(
        self, part: str, start: int, stop: int, *, counted: bool = True
    ) -> npt.NDArray[np.float32]:
        """A part's floating numbers, shape (rows, ...)."""
        dtype = self.source.tensors[self._name(part)].dtype
        raw = self._rows(part, start, stop, counted=counted)
        return floats(raw, dtype).reshape(stop - start, -1)

    def _rows(self, part: str, start: int, stop: int, *, counted: bool = True) -> Bytes:
        name = self._name(part)

        def read(first: int, last: int) -> Bytes:
            return self.source.rows(name, first, last)

        rows = (
            read(start, stop)
            if self.head_dim is None
            else pairs_from_halves(read, self.head_dim, start, stop)
        )
        if counted:
            self.on_read(rows.nbytes)
        return rows

    def _name(self, part: str) -> str:
        return f"{self.path}.{part}" if part else self.path


def _halved(values: npt.NDArray[np.float32], path: str) -> npt.NDArray[np.float16]:
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    if not np.all(np.isfinite(halves)):
        raise ConversionError(
            f"{path} holds values too large for float16, the type that llama.cpp's blocks have",
            hint="convert the original model with --bits 16 and export that",
        )
    return halves

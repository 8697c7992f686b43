"""Weights on their way: read a few rows at a time, checked, cast, quantized."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, Final

import mlx.core as mx
import numpy as np

from edgellm.checkpoint.quantization import Quantization
from edgellm.checkpoint.safetensors_file import DTYPE_BYTES
from edgellm.converters.tensors.bit_packing import affine_values
from edgellm.converters.tensors.dtypes import DTYPE_NAMES
from edgellm.converters.tensors.floats import Floats
from edgellm.converters.tensors.recipe import Matrix, OutputTensor
from edgellm.converters.tensors.source import Bytes, Source, SourceTensor
from edgellm.errors import FormatError
from edgellm.files.atomic import Data

CROSSING = (3, 5, 6)
"""Bits of codes that straddle bytes: on a CPU MLX takes ten times as long for them as NumPy."""

CHUNK_BYTES = 16 << 20
"""Bytes of the source that are in work at once; they bound the converter's memory."""

MLX_TYPES: Final = {
    "BF16": mx.bfloat16,
    "F16": mx.float16,
    "F32": mx.float32,
    "U32": mx.uint32,
    "U8": mx.uint8,
}

_INFINITY: Final[
    dict[str, tuple[type[np.signedinteger[Any]], type[np.unsignedinteger[Any]], int, int]]
] = {
    "BF16": (np.int16, np.uint16, 0x7F80, 0xFF80),
    "F16": (np.int16, np.uint16, 0x7C00, 0xFC00),
    "F32": (np.int32, np.uint32, 0x7F800000, 0xFF800000),
}
"""The bits of plus and minus infinity; above each lie only the NaNs of that sign."""


class WeightStream:
    """The bytes of each tensor of the folder, made from a source when their turn comes.

    Args:
        source: where the values come from.
        on_read: called with the bytes of each piece of the source.
        measure: whether to measure what quantization changes.
    """

    def __init__(self, source: Source, on_read: Callable[[int], None], *, measure: bool) -> None:
        self.errors: dict[str, float] = {}
        """Error of each quantized matrix: root mean square of the change over the weights'."""
        self._source = source
        self._on_read = on_read
        self._measure = measure
        self._waiting: dict[str, list[Data]] = {}

    def data(self, tensor: OutputTensor) -> Iterator[Data]:
        """Yield the bytes of one tensor, some rows after the other.

        Raises:
            FormatError: a value is infinite or not a number, or becomes so.
            ReadError: the source cannot be read.
        """
        matrix = tensor.matrix
        if matrix is None or matrix.form == matrix.stored:
            yield from self._cast(tensor)
        elif matrix.form is None and matrix.stored is not None:
            yield from self._dequantized(tensor, matrix, matrix.stored)
        elif matrix.form is not None:
            if tensor.name not in self._waiting:
                self._quantize(matrix, matrix.form)
            yield from self._waiting.pop(tensor.name)

    def _cast(self, tensor: OutputTensor) -> Iterator[Data]:
        dtype = self._source.tensors[tensor.name].dtype
        for rows in self._pieces(tensor.name):
            if dtype == tensor.dtype:
                yield rows
            else:
                yield _stored(
                    as_array(rows, self._source.tensors[tensor.name]), tensor.dtype, tensor.name
                )

    def _dequantized(
        self, tensor: OutputTensor, matrix: Matrix, stored: Quantization
    ) -> Iterator[Data]:
        for values in self._restored(matrix, stored):
            yield _stored(values, tensor.dtype, tensor.name)

    def _quantize(self, matrix: Matrix, form: Quantization) -> None:
        """Quantize a whole matrix, whose parts then wait until the turn of each comes."""
        waiting: dict[str, list[Data]] = {
            f"{matrix.path}.{part}": [] for part in form.stored(*matrix.shape, matrix.dtype)
        }
        change = size = 0.0
        begun: list[list[mx.array]] = []
        for values in chain(self._values(matrix), [None]):
            if values is not None:  # one piece is computed while the next is read
                parts = quantize(values, form, MLX_TYPES[matrix.dtype])
                sums = []
                if self._measure:
                    restored = dequantize(parts, form)
                    sums = [mx.square(restored - values).sum(), mx.square(values).sum()]
                mx.async_eval(parts, sums)
                begun.append([*parts, *sums])
            if len(begun) > 1 or values is None:
                done = begun.pop(0)
                for name, pieces in waiting.items():
                    pieces.append(_stored(done.pop(0), None, name))
                if self._measure:
                    change, size = change + float(done[0]), size + float(done[1])
        self._waiting |= waiting
        if self._measure:
            self.errors[matrix.path] = math.sqrt(change / (size or 1.0))  # zeros stay zeros
        mx.clear_cache()

    def _values(self, matrix: Matrix) -> Iterator[mx.array]:
        """Yield a matrix in float32, a few rows at a time, however the source stores it."""
        if matrix.stored is not None:
            yield from self._restored(matrix, matrix.stored)
            return
        name = f"{matrix.path}.weight"
        for rows in self._pieces(name):
            yield as_array(rows, self._source.tensors[name]).astype(mx.float32)

    def _restored(self, matrix: Matrix, stored: Quantization) -> Iterator[mx.array]:
        names = [f"{matrix.path}.{part}" for part in stored.stored(*matrix.shape, matrix.dtype)]
        step = max(1, CHUNK_BYTES // (2 * matrix.shape[1]))
        for pieces in zip(*(self._pieces(name, step) for name in names), strict=True):
            tensors = (self._source.tensors[name] for name in names)
            yield dequantize(list(map(as_array, pieces, tensors)), stored)

    def _pieces(self, name: str, step: int | None = None) -> Iterator[Bytes]:
        """Yield a tensor's bytes, a few rows at a time, checked to be finite."""
        tensor = self._source.tensors[name]
        step = step or self._rows_a_piece(name)
        for start in range(0, tensor.rows, step):
            rows = self._source.rows(name, start, min(start + step, tensor.rows))
            if tensor.dtype in _INFINITY and not is_finite(rows, tensor.dtype):
                raise FormatError(f"tensor {name} holds a value that is infinite or not a number")
            self._on_read(rows.nbytes)
            yield rows

    def _rows_a_piece(self, name: str) -> int:
        return max(1, CHUNK_BYTES // self._source.tensors[name].row_bytes)


def as_array(rows: Bytes, tensor: SourceTensor) -> mx.array:
    """Rows of a source's tensor as an MLX array, shape (rows, ...)."""
    same_width = {1: np.uint8, 2: np.uint16, 4: np.uint32}[DTYPE_BYTES[tensor.dtype]]
    codes = mx.array(rows.view(same_width).reshape(-1, *tensor.shape[1:]))
    return codes.view(MLX_TYPES[tensor.dtype])


def matrix_rows(source: Source, matrix: Matrix, start: int, stop: int) -> mx.array:
    """Read rows of a matrix, in the source's type or, if it is quantized, in float32."""
    names = [f"{matrix.path}.weight"]
    if matrix.stored is not None:
        parts = matrix.stored.stored(*matrix.shape, matrix.dtype)
        names = [f"{matrix.path}.{part}" for part in parts]
    arrays = [as_array(source.rows(name, start, stop), source.tensors[name]) for name in names]
    if matrix.stored is not None:
        return dequantize(arrays, matrix.stored)
    return arrays[0]


def float_rows(source: Source, matrix: Matrix, start: int, stop: int) -> Floats:
    """Read rows (rows, columns) of a matrix in float32, however the source stores it."""
    return np.array(matrix_rows(source, matrix, start, stop).astype(mx.float32))


def quantize(values: mx.array, form: Quantization, dtype: mx.Dtype) -> list[mx.array]:
    """Return weight, scales and, in affine mode, biases of a float32 matrix (rows, columns).

    Scales and biases have the type ``dtype``.

    8-bit codes are taken again with the scales as they are stored: rounded to bfloat16, a scale is
    off by up to half a 256th, and codes made for the exact one would be off by that much at the far
    end (error 0.0068 instead of 0.0054).
    """
    parts = mx.quantize(values, form.group_size, form.bits, form.mode)
    if form.mode != "affine":
        return list(parts)
    weight, scales, biases = parts[0], parts[1].astype(dtype), parts[2].astype(dtype)
    if form.bits == 8 and dtype != mx.float32:
        groups = values.reshape(values.shape[0], -1, form.group_size)
        shifted = groups - biases[..., None].astype(mx.float32)
        exact = shifted / scales[..., None].astype(mx.float32)
        codes = mx.clip(mx.round(exact), 0, 255).astype(mx.uint8)
        weight = codes.reshape(values.shape).view(mx.uint32)
    return [weight, scales, biases]


def dequantize(parts: Sequence[mx.array], form: Quantization) -> mx.array:
    """Return the float32 matrix (rows, columns) of weight, scales and biases."""
    weight, *scales = parts
    if form.mode == "affine" and form.bits in CROSSING and mx.default_device() == mx.cpu:
        wide = (np.array(part.astype(mx.float32)) for part in scales)
        return mx.array(affine_values(np.array(weight).view(np.uint8), *wide, bits=form.bits))
    if form.mode == "affine":
        scales = [part.astype(mx.float32) for part in scales]
    biases = next(iter(scales[1:]), None)  # only the affine mode has them
    return mx.dequantize(weight, scales[0], biases, **form.as_config(), dtype=mx.float32)


def is_finite(values: Bytes, dtype: str) -> bool:
    """Return whether no value is infinite or NaN, from its bits, without allocating."""
    signed, unsigned, positive, negative = _INFINITY[dtype]
    return not values.size or bool(
        values.view(signed).max() < positive and values.view(unsigned).max() < negative
    )


def _stored(array: mx.array, code: str | None, name: str) -> Bytes:
    """Return the bytes of an array cast to the type ``code``, checked for overflow."""
    if code is not None:
        array = array.astype(MLX_TYPES[code])
    code = code or next(name for name, dtype in MLX_TYPES.items() if dtype == array.dtype)
    content = np.array(array.view(mx.uint8), copy=False).reshape(-1)
    if code in _INFINITY and not is_finite(content, code):
        raise FormatError(
            f"tensor {name} holds values too large for {DTYPE_NAMES[code]}",
            hint="convert with --dtype bfloat16 or float32",
        )
    return content

"""Weights on their way: read a few rows at a time, checked, cast, quantized."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import mlx.core as mx
import numpy as np

from edgellm.checkpoint.quantization import Quantization
from edgellm.checkpoint.safetensors_file import DTYPE_BYTES
from edgellm.converters.tensors.bit_packing import affine_values
from edgellm.converters.tensors.dtypes import DTYPE_NAMES
from edgellm.converters.tensors.file_rows import made_ahead
from edgellm.converters.tensors.floats import Floats
from edgellm.converters.tensors.recipe import Matrix, OutputTensor
from edgellm.converters.tensors.source import Bytes, Source, SourceTensor
from edgellm.errors import FormatError
from edgellm.files.atomic import Data
from edgellm.kernels.weight_quantizer import has_quantizer, quantize_rows

CROSSING = (3, 5, 6)
"""Bits of codes that straddle bytes: on a CPU MLX takes ten times as long for them as NumPy."""

CHUNK_BYTES = 4 << 20
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
            if tensor.name in self._waiting:
                yield from self._waiting.pop(tensor.name)
            else:
                yield from self._quantized(matrix, matrix.form, tensor.name)

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

    def _quantized(self, matrix: Matrix, form: Quantization, wanted: str) -> Iterator[Data]:
        """Yield one part of a matrix; the others then wait until the turn of each comes."""
        names = [f"{matrix.path}.{part}" for part in form.stored(*matrix.shape, matrix.dtype)]
        waiting: dict[str, list[Data]] = {name: [] for name in names if name != wanted}
        change = size = 0.0
        for rows, dtype in self._values(matrix, form):
            parts = _quantized_rows(rows, dtype, matrix, form)
            if self._measure:
                values = _float32(rows, dtype, matrix)
                restored = dequantize(_arrays(parts, matrix, form), form)
                change += float(mx.square(restored - values).sum())
                size += float(mx.square(values).sum())
            for name, part in zip(names, parts, strict=True):
                if name == wanted:
                    yield part
                else:
                    waiting[name].append(part)
        self._waiting |= waiting
        if self._measure:
            self.errors[matrix.path] = math.sqrt(change / (size or 1.0))  # zeros stay zeros
        mx.clear_cache()

    def _values(self, matrix: Matrix, form: Quantization) -> Iterator[tuple[Bytes, str]]:
        """Yield a matrix, a few rows at a time: their bytes, and the type that these are of."""
        if matrix.stored is not None:
            for values in self._restored(matrix, matrix.stored):
                yield np.array(values, copy=False).reshape(-1).view(np.uint8), "F32"
            return
        name = f"{matrix.path}.weight"
        # a kernel looks for what is not finite by itself
        for rows in self._pieces(name, checked=not has_kernel(form)):
            yield rows, self._source.tensors[name].dtype

    def _restored(self, matrix: Matrix, stored: Quantization) -> Iterator[mx.array]:
        names = [f"{matrix.path}.{part}" for part in stored.stored(*matrix.shape, matrix.dtype)]
        step = max(1, CHUNK_BYTES // (2 * matrix.shape[1]))
        for pieces in zip(*(self._pieces(name, step) for name in names), strict=True):
            tensors = (self._source.tensors[name] for name in names)
            yield dequantize(list(map(as_array, pieces, tensors)), stored)

    def _pieces(
        self, name: str, step: int | None = None, *, checked: bool = True
    ) -> Iterator[Bytes]:
        """Yield a tensor's bytes, a few rows at a time, the next ones read meanwhile.

        Raises FormatError where they are to be checked and some are not finite.
        """
        tensor = self._source.tensors[name]
        for rows in made_ahead(self._read(name, step or self._rows_a_piece(name))):
            if checked and tensor.dtype in _INFINITY and not is_finite(rows, tensor.dtype):
                raise _not_finite(name)
            self._on_read(rows.nbytes)
            yield rows

    def _read(self, name: str, step: int) -> Iterator[Bytes]:
        rows = self._source.tensors[name].rows
        for start in range(0, rows, step):
            yield self._source.rows(name, start, min(start + step, rows))

    def _rows_a_piece(self, name: str) -> int:
        return max(1, CHUNK_BYTES // self._source.tensors[name].row_bytes)


def has_kernel(form: Quantization) -> bool:
    """Return whether matrices get this form by a kernel, which several threads may call."""
    return form.mode == "affine" and has_quantizer(form.bits)


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


def row_parts(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """Yield the first row of each part of a matrix, and the one behind the part's last.

    In float32 a part has ``CHUNK_BYTES``.
    """
    step = max(1, CHUNK_BYTES // (4 * columns))
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


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


def _quantized_rows(rows: Bytes, dtype: str, matrix: Matrix, form: Quantization) -> list[Bytes]:
    """Return the bytes of weight, scales and, in affine mode, biases of some rows of a matrix."""
    names = [f"{matrix.path}.{part}" for part in form.stored(*matrix.shape, matrix.dtype)]
    if not has_kernel(form):
        parts = quantize(_float32(rows, dtype, matrix), form, MLX_TYPES[matrix.dtype])
        return [_stored(part, None, name) for part, name in zip(parts, names, strict=True)]
    made = quantize_rows(
        rows, dtype, bits=form.bits, group_size=form.group_size, scale_dtype=matrix.dtype
    )
    if not made.is_finite:
        raise _not_finite(f"{matrix.path}.weight")
    for name, part in zip(names[1:], made.parts[1:], strict=True):
        _require_in_range(part, matrix.dtype, name)
    return list(made.parts)


def _float32(rows: Bytes, dtype: str, matrix: Matrix) -> mx.array:
    """Return rows of a matrix in float32."""
    return as_array(rows, SourceTensor(dtype, matrix.shape)).astype(mx.float32)


def _arrays(parts: Sequence[Bytes], matrix: Matrix, form: Quantization) -> list[mx.array]:
    """Return the parts of some rows of a quantized matrix as arrays."""
    stored = form.stored(*matrix.shape, matrix.dtype).values()
    return [as_array(part, SourceTensor(*how)) for part, how in zip(parts, stored, strict=True)]


def _stored(array: mx.array, code: str | None, name: str) -> Bytes:
    """Return the bytes of an array cast to the type ``code``, checked for overflow."""
    if code is not None:
        array = array.astype(MLX_TYPES[code])
    code = code or next(name for name, dtype in MLX_TYPES.items() if dtype == array.dtype)
    content = np.array(array.view(mx.uint8), copy=False).reshape(-1)
    _require_in_range(content, code, name)
    return content


def _require_in_range(content: Bytes, code: str, name: str) -> None:
    if code in _INFINITY and not is_finite(content, code):
        raise FormatError(
            f"tensor {name} holds values too large for {DTYPE_NAMES[code]}",
            hint="convert with --dtype bfloat16 or float32",
        )


def _not_finite(name: str) -> FormatError:
    return FormatError(f"tensor {name} holds a value that is infinite or not a number")

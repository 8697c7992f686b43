"""One tensor of a model folder as llama.cpp's blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.quantization import Quantization
from edgellm.converters.gguf.blocks.affine_blocks import GROUP
from edgellm.converters.gguf.blocks.joins import (
    join_float4,
    join_q4_1,
    join_q5_1,
    join_q8_0,
    join_signed,
    join_ternary,
)
from edgellm.converters.gguf.blocks.table import BLOCKS
from edgellm.converters.tensors.bit_packing import affine_values
from edgellm.converters.tensors.floats import Floats, floats
from edgellm.converters.tensors.rope_permutation import pairs_from_halves
from edgellm.converters.tensors.source import Bytes, Source, SourceTensor
from edgellm.converters.tensors.weight_stream import as_array, dequantize
from edgellm.errors import ConversionError

BATCH_VALUES = 1 << 22
"""Weights that are in work at once: 16 MB as float32."""

KINDS: Mapping[tuple[str, int], str] = {
    ("affine", 4): "Q4_1",
    ("affine", 5): "Q5_1",
    ("affine", 8): "Q8_0",
    ("mxfp4", 4): "MXFP4",
    ("nvfp4", 4): "NVFP4",
}
"""The block type that has the codes of each mode and number of bits."""

SMALLEST: Mapping[int, tuple[str, float]] = {1: ("Q1_0", -0.5), 2: ("Q2_0", -1.0)}
"""Block types of one and two bits: theirs is the one bias, as a share of the scale."""


TERNARY = "TQ2_0"
"""The type of two bits whose codes are three, in blocks of 256; smaller than Q2_0, and older."""


@dataclass(slots=True)
class GgufMatrix:
    """A tensor on its way out.

    Attributes:
        source: the model.
        path: the tensor's name; of a quantized matrix without its last part.
        shape: the shape of its unquantized values.
        stored: how the source has it; None: unquantized.
        head_dim: rows of a head where llama.cpp wants them in pairs; None: the order stays.
        offset: what is added to the numbers of a norm.
        on_read: called with the bytes of each piece of the source.
        error: once it is written, the root mean square of the change over that of the weights; 0.0:
            there was none.
    """

    source: Source
    path: str
    shape: tuple[int, ...]
    stored: Quantization | None
    head_dim: int | None
    offset: float
    on_read: Callable[[int], None]
    error: float = 0.0
    _change: float = field(default=0.0, init=False)
    _size: float = field(default=0.0, init=False)
    """Sums of squares of the change, and of the weights."""
    kind: str = field(init=False)
    """ggml's type: norms and biases are always F32, which is what llama.cpp takes."""

    def __post_init__(self) -> None:
        """Choose the type, for which the scales of some forms are looked at. Raises ReadError."""
        if self.stored is not None:
            self.kind = self._block_type(self.stored)
        elif len(self.shape) == 1:
            self.kind = "F32"
        else:
            self.kind = self.source.tensors[self.path].dtype

    def _block_type(self, form: Quantization) -> str:
        """Return the block type that has the codes of a quantized matrix, or F16."""
        kind = KINDS.get((form.mode, form.bits), "F16")
        if form.mode == "affine" and form.bits in SMALLEST:
            name, share = SMALLEST[form.bits]
            scales, biases = (
                self._floats(part, 0, self.shape[0], counted=False) for part in ("scales", "biases")
            )
            if not np.array_equal(biases, scales * np.float32(share)) or not _fits_float16(biases):
                return "F16"
            if form.bits == 2 and self._is_ternary(scales, form.group_size):
                return TERNARY
            weights = BLOCKS[name].weights
            if form.group_size % weights == 0 and self.shape[1] % weights == 0:
                return name
        if kind == "NVFP4":
            float8 = self._rows(f"{self.path}.scales", 0, self.shape[0], counted=False)
            # blocks of 64, and scales that have no sign
            if self.shape[1] % BLOCKS[kind].weights or float8.max(initial=0) >= 0x7F:
                return "F16"
        return kind

    def _is_ternary(self, scales: Floats, group_size: int) -> bool:
        """Return whether every 256 weights share a scale, and none has the highest code."""
        rows, columns = self.shape
        if columns % BLOCKS[TERNARY].weights:
            return False
        blocks = scales.reshape(-1, BLOCKS[TERNARY].weights // group_size)
        if not np.array_equal(blocks, np.broadcast_to(blocks[:, :1], blocks.shape)):
            return False
        step = max(1, BATCH_VALUES // columns)
        for start in range(0, rows, step):
            codes = self._codes_of(start, min(start + step, rows), counted=False)
            if np.any(codes & codes >> 1 & 0x55):  # both bits of a code
                return False
        return True

    def pieces(self) -> Iterator[Bytes]:
        """Yield the bytes of its blocks.

        Raises:
            ConversionError: a value is too large for float16.
            ReadError: the source cannot be read.
        """
        rows = self.shape[0]
        step = max(1, BATCH_VALUES // math.prod(self.shape[1:]))
        write = self._writer()
        for start in range(0, rows, step):
            yield write(start, min(start + step, rows))
        if self._size:
            self.error = math.sqrt(self._change / self._size)

    def _writer(self) -> Callable[[int, int], Bytes]:
        """Return what makes some rows' blocks, without a change where the type allows it."""
        if self.stored is None:
            if len(self.shape) == 1:
                return self._vector
            return self._unquantized
        if self.kind == "F16":
            return self._dequantized
        if self.stored.mode != "affine" or self.stored.bits in SMALLEST:
            return self._codes
        scales = self._floats("scales", 0, self.shape[0], counted=False)
        biases = self._floats("biases", 0, self.shape[0], counted=False)
        exact = _is_float16(scales, self.path)
        if self.stored.bits == 8:
            # Q8_0 has no bias: codes stay where the bias only makes them signed
            if exact and np.all(biases == -128 * scales):
                return self._codes
            return self._requantized
        if exact and _is_float16(biases, self.path):
            return self._codes
        return self._rounded_scales

    def _unquantized(self, start: int, stop: int) -> Bytes:
        return self._rows(self.path, start, stop)

    def _vector(self, start: int, stop: int) -> Bytes:
        values = floats(self._rows(self.path, start, stop), self._tensor(self.path).dtype)
        values = values + np.float32(self.offset)
        return values.view(np.uint8)

    def _codes(self, start: int, stop: int) -> Bytes:
        """Return blocks with the source's own codes."""
        form = self._form
        weight = self._codes_of(start, stop)
        if form.mode != "affine":
            stored_scales = self._rows(f"{self.path}.scales", start, stop)
            return join_float4(weight, stored_scales.reshape(stop - start, -1), form.group_size)
        parts = [self._floats(part, start, stop) for part in ("scales", "biases")]
        if self.kind == TERNARY:
            share = BLOCKS[TERNARY].weights // form.group_size
            return join_ternary(weight, -_halved(parts[1], self.path)[:, ::share])
        # MLX's groups of 64 or 128 are two or four of ggml's
        repeats = form.group_size // BLOCKS[self.kind].weights
        scales, biases = (np.repeat(_halved(part, self.path), repeats, axis=1) for part in parts)
        if form.bits in SMALLEST:
            return join_signed(weight, -biases)
        if form.bits == 8:
            return join_q8_0((weight ^ 0x80).view(np.int8), scales)
        if form.bits == 4:
            return join_q4_1(weight, scales, biases)
        return join_q5_1(weight, scales, biases)

    def _rounded_scales(self, start: int, stop: int) -> Bytes:
        """Return the same as ``_codes``, where float16 does not hold every scale."""
        bits = self._form.bits
        weight = self._codes_of(start, stop, counted=False)
        exact = [self._floats(part, start, stop, counted=False) for part in ("scales", "biases")]
        rounded = [_halved(part, self.path).astype(np.float32) for part in exact]
        values = affine_values(weight, *exact, bits=bits)
        self._measure(affine_values(weight, *rounded, bits=bits) - values, values)
        return self._codes(start, stop)

    def _requantized(self, start: int, stop: int) -> Bytes:
        """Return Q8_0 blocks of the values, where MLX's codes need a bias.

        As ggml does it: scale = max |w| / 127, code = round(w / scale).
        """
        values = self._dequantize(start, stop).reshape(-1, GROUP)
        scales = _halved(np.abs(values).max(axis=1, keepdims=True) / 127, self.path)
        wide = scales.astype(np.float32)
        ratios = np.divide(values, wide, out=np.zeros_like(values), where=wide > 0)
        codes = np.rint(ratios).clip(-127, 127)
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

    def _measure(self, change: Floats, values: Floats) -> None:
        self._change += float(np.vdot(change, change))
        self._size += float(np.vdot(values, values))

    def _dequantize(self, start: int, stop: int) -> Floats:
        """Return the values of some rows, shape (rows, columns)."""
        form = self._form
        if form.mode == "affine":
            weight = self._codes_of(start, stop)
            scales = self._floats("scales", start, stop)
            biases = self._floats("biases", start, stop)
            return affine_values(weight, scales, biases, bits=form.bits)
        arrays = []
        for part in form.stored(*self._matrix_shape, "F16"):
            name = f"{self.path}.{part}"
            arrays.append(as_array(self._rows(name, start, stop), self._tensor(name)))
        return np.array(dequantize(arrays, form))

    @property
    def _matrix_shape(self) -> tuple[int, int]:
        rows, columns = self.shape
        return rows, columns

    def _codes_of(self, start: int, stop: int, *, counted: bool = True) -> Bytes:
        """Return some rows' packed codes, shape (rows, bytes)."""
        rows = self._rows(f"{self.path}.weight", start, stop, counted=counted)
        return rows.reshape(stop - start, -1)

    def _floats(self, part: str, start: int, stop: int, *, counted: bool = True) -> Floats:
        """Return some rows of scales or biases, shape (rows, groups)."""
        name = f"{self.path}.{part}"
        content = self._rows(name, start, stop, counted=counted)
        return floats(content, self._tensor(name).dtype).reshape(stop - start, -1)

    def _tensor(self, name: str) -> SourceTensor:
        return self.source.tensors[name]

    def _rows(self, name: str, start: int, stop: int, *, counted: bool = True) -> Bytes:
        """Return the source's bytes of some rows, in llama.cpp's order."""

        def read(first: int, last: int) -> Bytes:
            return self.source.rows(name, first, last)

        if self.head_dim is None:
            rows = read(start, stop)
        else:
            rows = pairs_from_halves(read, self.head_dim, start, stop)
        if counted:
            self.on_read(rows.nbytes)
        return rows


def _halved(values: Floats, path: str) -> npt.NDArray[np.float16]:
    """Return values as float16. Raises ConversionError where one is too large."""
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    if not np.all(np.isfinite(halves)):
        raise ConversionError(
            f"{path} holds values too large for float16, the type that llama.cpp's blocks have",
            hint="convert the original model with --bits 16 and export that",
        )
    return halves


def _fits_float16(values: Floats) -> bool:
    """Return whether float16 holds every value exactly, and none is too large."""
    with np.errstate(over="ignore"):
        return bool(np.all(values.astype(np.float16) == values))


def _is_float16(values: Floats, path: str) -> bool:
    """Return whether float16 holds every value exactly. Raises ConversionError."""
    return bool(np.all(_halved(values, path) == values))

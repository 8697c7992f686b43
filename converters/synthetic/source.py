"""Random weights of a model's shape, to measure a machine with."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.buffer import DTYPES
from edgellm.checkpoint.quantization import Quantization, chosen_quantization, quantization_block
from edgellm.checkpoint.safetensors_file import DTYPE_BYTES
from edgellm.converters.synthetic.model_shape import shape_of
from edgellm.converters.tensors.source import AS_SHOWN, Bytes, SourceTensor

LEVELS = 256
"""Different values of a scale, a norm or a bias: one for each random byte."""

_FLOAT_BITS: Mapping[str, tuple[type[np.unsignedinteger[Any]], int, int]] = {
    "F16": (np.uint16, 10, 5),
    "BF16": (np.uint16, 7, 8),
    "F32": (np.uint32, 23, 8),
}
"""An unsigned type of the same width, and the bits of fraction and exponent."""


class SyntheticSource:
    """A source of random numbers in a model's shape, quantized; a row is always the same.

    Codes are uniform, and scales such that a matrix keeps the size of what it multiplies, so that
    activations stay in range through any number of layers.
    """

    notes: Sequence[str] = ()
    forms = AS_SHOWN

    def __init__(
        self,
        shape: str | Path,
        quantization: Quantization | None,
        *,
        dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        model = shape_of(shape, dtype=dtype)
        raw, code = dict(model.config), model.code
        self.tensors: Mapping[str, SourceTensor] = {}
        self._tables: dict[str, npt.NDArray[Any]] = {}
        self._columns: dict[str, int] = {}
        forms: dict[str, Quantization | None] = {}
        for name, size in model.tensors().items():
            path, _, part = name.rpartition(".")
            if len(size) == 2:
                forms[path] = None
                if quantization:
                    forms[path] = chosen_quantization(
                        size[1], quantization.bits, quantization.group_size
                    )
            form = forms.get(path)
            if len(size) == 2 and form is not None:
                self.tensors |= {
                    f"{path}.{part}": SourceTensor(*stored)
                    for part, stored in form.stored(size[0], size[1], code).items()
                }
                self._tables |= {
                    f"{path}.{part}": table for part, table in _scales(form, size[1], code).items()
                }
                continue
            self.tensors |= {name: SourceTensor(code, size)}
            if len(size) == 2:
                self._columns[name] = size[1]
            else:
                self._tables[name] = _stored(
                    np.linspace(-0.1, 0.1, LEVELS) + (part == "weight"), code
                )
        if quantization:
            raw["quantization"] = quantization_block(quantization, forms)
        self.config: Mapping[str, Any] = raw
        self.companions: Mapping[str, Path | bytes] = model.companions
        self._seed = seed

    @property
    def fingerprint(self) -> str:
        """The seed; all else the recipe's digest tells apart."""
        return f"synthetic {self._seed}"

    def rows(self, name: str, start: int, stop: int) -> Bytes:
        """Make the bytes of rows ``start`` to ``stop`` of a tensor, shape (bytes,)."""
        tensor = self.tensors[name]
        begin, end = start * tensor.row_bytes, stop * tensor.row_bytes
        if name in self._tables:
            width = DTYPE_BYTES[tensor.dtype]
            scales = name.removesuffix(".biases") + ".scales"
            of = scales if name.endswith(".biases") and scales in self._tables else name
            return self._tables[name][self._random(of, begin // width, end // width)].view(np.uint8)
        numbers = self._random(name, begin, end)
        if name in self._columns:
            _make_floats(numbers, tensor.dtype, self._columns[name] ** -0.5)
        return numbers

    def _random(self, name: str, begin: int, end: int) -> Bytes:
        """Make bytes ``begin`` to ``end`` of an endless stream that name and seed determine."""
        key = hashlib.sha256(f"{self._seed} {name}".encode()).digest()
        stream = np.random.PCG64DXSM(int.from_bytes(key, "little")).advance(begin // 8)
        words = stream.random_raw(-(-end // 8) - begin // 8)
        return words.view(np.uint8)[begin % 8 : begin % 8 + end - begin]


def _scales(form: Quantization, columns: int, code: str) -> dict[str, npt.NDArray[Any]]:
    """Return scales and biases by random byte; uniform codes then have variance 1 / columns."""
    deviation = math.sqrt((4**form.bits - 1) / 12)
    scales = np.linspace(0.75, 1.25, LEVELS) / (deviation * math.sqrt(columns))
    return {
        "scales": _stored(scales, code),
        "biases": _stored(scales * -(2**form.bits - 1) / 2, code),
    }


def _stored(values: npt.NDArray[np.float64], code: str) -> npt.NDArray[Any]:
    """Numbers as the format stores them, each as one unsigned integer."""
    array = mx.array(values.astype(np.float32)).astype(DTYPES[code])
    return np.array(array.view(mx.uint8)).view(_FLOAT_BITS[code][0])


def _make_floats(numbers: Bytes, code: str, deviation: float) -> None:
    """Turn random bytes into random floats in place.

    Sign, fraction and the lowest bit of the exponent stay as they are.
    What comes out lies between 1 and 4 times a power of 4, with a deviation of 2.4 times that
    power.
    """
    unsigned, fraction, exponent = _FLOAT_BITS[code]
    words = numbers.view(unsigned)
    middle = (1 << (exponent - 1)) - 1
    smallest = (middle + round(math.log2(deviation / 2.4))) & ~1
    words &= unsigned((1 << (fraction + exponent)) | ((2 << fraction) - 1))
    words |= unsigned(smallest << fraction)

"""The protocol of packed matrices, and a folder's tensors as methods read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.quantization import AFFINE_BITS, GROUP_SIZES, Quantization
from edgellm.converters.tensors.bit_packing import unpack
from edgellm.converters.tensors.floats import Floats, floats
from edgellm.converters.tensors.source import Bytes, Source
from edgellm.errors import FormatError, UnsupportedModelError
from edgellm.files.strict_json import quoted

# O outputs, I inputs, G groups of inputs

Words = npt.NDArray[np.uint32]

OTHER_MODEL = "convert the model that it was made from"
"""The way round of what cannot be read."""

REQUANTIZED = Quantization(6, 64)
"""What values of about four bits become that are in no form of MLX's."""


class PackedMatrix(Protocol):
    """A matrix as its quantizer stores it."""

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""

    @property
    def kept(self) -> Quantization | None:
        """The form of MLX's that says the same; None: it is shown as numbers."""

    @property
    def wished(self) -> Quantization:
        """The form that it gets if no other is asked for."""

    def part(self, part: str, start: int, stop: int) -> Floats | Bytes:
        """Return rows of a part: packed codes and float32, or numbers where none are kept."""


@dataclass(frozen=True, slots=True)
class PackedFolder:
    """A method's view of a folder.

    Attributes:
        matrices: by their paths.
        consumed: names of the tensors that belong to them, or mean nothing here.
        notes: said to a person.
    """

    matrices: Mapping[str, PackedMatrix]
    consumed: frozenset[str]
    notes: Sequence[str] = ()


Method = Callable[[Source, Mapping[str, Any]], PackedFolder]
"""Finds the matrices of a folder, from its tensors and the config's block."""


class Tensors:
    """A source's tensors as arrays, their types and shapes checked."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __contains__(self, name: str) -> bool:
        return name in self._source.tensors

    def paths(self, part: str) -> list[str]:
        """Return the paths of the matrices that have this part."""
        names = self._source.tensors
        return [name.removesuffix(f".{part}") for name in names if name.endswith(f".{part}")]

    def dtype(self, name: str) -> str:
        """Return the code of a tensor's type."""
        return self._source.tensors[name].dtype

    def row_bytes(self, name: str) -> int:
        """Return the bytes of one row of a tensor."""
        return self._source.tensors[name].row_bytes

    def nbytes(self, name: str, dtypes: Sequence[str]) -> int:
        """Return a tensor's bytes. Raises FormatError where it is not of these types."""
        self.any_shape(name, dtypes)
        return self._source.tensors[name].nbytes

    def any_shape(self, name: str, dtypes: Sequence[str]) -> tuple[int, ...]:
        """Return a tensor's shape of any rank. Raises FormatError as ``shape`` does."""
        tensor = self._source.tensors.get(name)
        rank = 0
        if tensor is not None:
            rank = len(tensor.shape)
        return self.shape(name, dtypes, rank)

    def shape(self, name: str, dtypes: Sequence[str], rank: int) -> tuple[int, ...]:
        """Return a tensor's shape. Raises FormatError where it is not of these types."""
        tensor = self._source.tensors.get(name)
        if tensor is None:
            raise FormatError(f"tensor {quoted(name)} is missing", hint="download the model again")
        if tensor.dtype not in dtypes or len(tensor.shape) != rank or 0 in tensor.shape:
            raise FormatError(
                f"tensor {quoted(name)} is {tensor.dtype} {tensor.shape}, which its method lacks",
                hint="download the model again",
            )
        return tensor.shape

    def expect(self, name: str, dtypes: Sequence[str], shape: tuple[int, ...]) -> None:
        """Raise FormatError unless a tensor has one of these types and just this shape."""
        found = self.shape(name, dtypes, len(shape))
        if found != shape:
            raise FormatError(
                f"tensor {quoted(name)} has the shape {found}; its matrix needs {shape}",
                hint="download the model again",
            )

    def raw(self, name: str, start: int = 0, stop: int | None = None) -> Bytes:
        """Return the bytes of some rows, or of all."""
        if stop is None:
            stop = self._source.tensors[name].rows
        return self._source.rows(name, start, stop)

    def words(self, name: str) -> Words:
        """Return a tensor of 32-bit words."""
        return self.raw(name).view("<u4").reshape(self._source.tensors[name].shape)

    def numbers(self, name: str, start: int = 0, stop: int | None = None) -> Floats:
        """Return some rows of a floating tensor in float32, checked to be finite."""
        tensor = self._source.tensors[name]
        values = floats(self.raw(name, start, stop), tensor.dtype)
        if not np.isfinite(values).all():
            raise FormatError(
                f"tensor {quoted(name)} holds a value that is infinite or not a number",
                hint="download the model again",
            )
        return values.reshape(-1, *tensor.shape[1:])

    def order(self, name: str, inputs: int, groups: int, group: int) -> Words | None:
        """Return each input's group, which a tensor tells; None: ``group`` stand side by side.

        Where no order is known, that is said by -1 throughout, or by no tensor.
        """
        if name not in self:
            return None
        self.expect(name, ["I32"], (inputs,))
        order = self.words(name)
        if (order == np.uint32(0xFFFFFFFF)).all():
            return None
        if order.max() >= groups:
            raise FormatError(
                f"tensor {quoted(name)} names a group that is not there",
                hint="download the model again",
            )
        if np.array_equal(order, np.arange(inputs) // group):
            return None
        return order


def affine_form(bits: int, group: int, columns: int) -> Quantization | None:
    """Return MLX's form of codes in groups of ``group`` inputs; None: it has none.

    A group of another size is several of MLX's with the same scale.
    """
    for size in sorted(GROUP_SIZES, reverse=True):
        if bits in AFFINE_BITS and group % size == 0 and columns % size == 0:
            return Quantization(bits, size)
    return None


def spread(numbers: Floats, group: int, form: Quantization, columns: int) -> Floats:
    """Return a number for each of MLX's groups: (O, G) becomes (O, columns / MLX's group)."""
    return np.repeat(numbers, group // form.group_size, axis=1)[:, : columns // form.group_size]


def fields(words: Words, bits: int) -> Bytes:
    """Return the codes packed along the last axis, from the lowest bit on."""
    return unpack(np.ascontiguousarray(words).view(np.uint8), bits)


def whole_number(block: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """Return a number of the config's block. Raises FormatError where it is none."""
    value = block.get(key, default)
    if type(value) is not int:
        raise FormatError(
            f"config.json: {key} of the quantization is {quoted(value)}",
            hint="download the model again",
        )
    return value


def refuse(what: str) -> NoReturn:
    """Raise UnsupportedModelError with the usual way round."""
    raise UnsupportedModelError(f"{what}, which edgellm does not read", hint=OTHER_MODEL)

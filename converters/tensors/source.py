"""The protocol of formats: any becomes Hugging Face's names, shapes and config.

And what sources share that show another one changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.dialects.names import Spelling
from edgellm.checkpoint.folder import LAYER_NAME
from edgellm.checkpoint.quantization import Quantization
from edgellm.checkpoint.safetensors_file import DTYPE_BYTES
from edgellm.errors import FormatError

Bytes = npt.NDArray[np.uint8]

ReadRows = Callable[[int, int], Bytes]
"""Reads the bytes of rows from one to another, shape (bytes,)."""

COMPARED_BYTES = 16 << 20
"""Bytes of two tensors that are compared at a time."""

AS_SHOWN: Mapping[str, Quantization] = MappingProxyType({})
"""The ``forms`` of most sources: what is shown unquantized was so."""


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """One tensor as a source shows it.

    Attributes:
        dtype: safetensors' code of its type.
        shape: the shape of the tensor.
        becomes: the type that it gets where none is asked for; None: its own.
    """

    dtype: str
    shape: tuple[int, ...]
    becomes: str | None = None

    @property
    def usual_dtype(self) -> str:
        """The type that it gets where none is asked for."""
        return self.becomes or self.dtype

    @property
    def row_bytes(self) -> int:
        """Bytes of one step along the first axis."""
        return math.prod(self.shape[1:]) * DTYPE_BYTES[self.dtype]

    @property
    def rows(self) -> int:
        """Steps along the first axis."""
        return next(iter(self.shape), 1)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        return self.rows * self.row_bytes


class Source(Protocol):
    """A model in some format, read a few rows of one tensor at a time.

    A quantized source shows each matrix as MLX stores it (``.weight``, ``.scales``, ``.biases``)
    and says so in its config. A new format is a class with these members and a row in
    ``formats.FORMATS``. The smallest one has all in memory::

        class ArraySource:
            forms, notes, companions = AS_SHOWN, (), {"tokenizer.json": b"..."}

            def __init__(self, config: Mapping[str, Any], arrays: Mapping[str, Floats]) -> None:
                self.config, self.arrays = config, arrays
                self.tensors = {
                    name: SourceTensor("F32", array.shape) for name, array in arrays.items()
                }
                self.fingerprint = "version 1"

            def rows(self, name: str, start: int, stop: int) -> Bytes:
                return self.arrays[name][start:stop].reshape(-1).view(np.uint8)
    """

    @property
    def config(self) -> Mapping[str, Any]:
        """Hugging Face's ``config.json``."""

    @property
    def tensors(self) -> Mapping[str, SourceTensor]:
        """Every tensor by Hugging Face's name."""

    @property
    def forms(self) -> Mapping[str, Quantization]:
        """By path, the usual forms of matrices that are shown unquantized; mostly nothing."""

    @property
    def companions(self) -> Mapping[str, Path | bytes]:
        """Files that go along (tokenizer, template, license): one to copy, or its content.

        Raises TokenizerError where the format has no tokenizer of its own and none lies beside it.
        """

    @property
    def notes(self) -> Sequence[str]:
        """Messages for a person, said when a conversion begins; mostly none."""

    @property
    def fingerprint(self) -> str:
        """A text that changes when the source does; a stopped conversion then starts over."""

    def rows(self, name: str, start: int, stop: int) -> Bytes:
        """Read the bytes of rows ``start`` to ``stop``, shape (bytes,). Raises ReadError."""


class DerivedSource:
    """A source that shows another one changed; what a subclass leaves alone is the base's own."""

    def __init__(self, base: Source) -> None:
        self._base = base
        self.config: Mapping[str, Any] = base.config
        self.tensors: Mapping[str, SourceTensor] = base.tensors
        self.forms: Mapping[str, Quantization] = base.forms
        self.notes: Sequence[str] = base.notes
        self.spelling: Spelling | None = getattr(base, "spelling", None)

    @property
    def companions(self) -> Mapping[str, Path | bytes]:
        """The base's, asked for only when wanted: a given tokenizer replaces some."""
        return self._base.companions

    @property
    def fingerprint(self) -> str:
        """The base's."""
        return self._base.fingerprint

    def rows(self, name: str, start: int, stop: int) -> Bytes:
        """Read the bytes of the base's rows. Raises ReadError."""
        return self._base.rows(name, start, stop)


def have_same_rows(tensor: SourceTensor, one: ReadRows, other: ReadRows) -> bool:
    """Return whether two tensors of one type and shape hold the same bytes.

    Reading ends at the first difference. Raises ReadError.
    """
    step = max(1, COMPARED_BYTES // max(1, tensor.row_bytes))
    for start in range(0, tensor.rows, step):
        stop = min(start + step, tensor.rows)
        if not np.array_equal(one(start, stop), other(start, stop)):
            return False
    return True


def require_no_more_layers(
    tensors: Mapping[str, object], config: Mapping[str, Any], place: Path
) -> None:
    """Refuse a model whose files have layers past the last one of its config.

    transformers leaves such layers out. The programs that other formats are made for refuse them,
    since a config that is one layer off makes another model of the same weights.

    Args:
        tensors: by Hugging Face's names.
        config: Hugging Face's.
        place: where they come from, for the error.

    Raises:
        FormatError: there are such layers.
    """
    count = config["num_hidden_layers"]
    found = {int(match[1]) for match in map(LAYER_NAME.match, tensors) if match}
    if found and max(found) >= count:
        raise FormatError(
            f"{place} has tensors of layer {max(found)}, and its config speaks of {count}",
            hint="the config may be another model's; take both from where the model came from",
        )

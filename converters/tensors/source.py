"""The protocol of formats: any becomes Hugging Face's names, shapes and config."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.quantization import Quantization
from edgellm.checkpoint.safetensors_file import DTYPE_BYTES

Bytes = npt.NDArray[np.uint8]

AS_SHOWN: Mapping[str, Quantization] = MappingProxyType({})
"""The ``forms`` of most sources: what is shown unquantized was so."""


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """One tensor as a source shows it.

    Attributes:
        dtype: safetensors' code of its type.
        shape: of the tensor.
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
        """A text that changes when the source does; a stopped conversion then starts anew."""

    def rows(self, name: str, start: int, stop: int) -> Bytes:
        """Read the bytes of rows ``start`` to ``stop``, shape (bytes,). Raises ReadError."""

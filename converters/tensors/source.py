"""What a converter reads from: any format becomes Hugging Face's names, shapes and config."""

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
    """Type (safetensors' code) and shape of one tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one step along the first axis."""
        return math.prod(self.shape[1:]) * DTYPE_BYTES[self.dtype]

    @property
    def rows(self) -> int:
        """Steps along the first axis."""
        return self.shape[0] if self.shape else 1

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        return self.rows * self.row_bytes


class Source(Protocol):
    """A model in some format, read a few rows of one tensor at a time.

    A quantized source shows each matrix as MLX stores it (``.weight``, ``.scales``, ``.biases``)
    and says so in its config.
    """

    @property
    def config(self) -> Mapping[str, Any]:
        """Hugging Face's ``config.json``."""

    @property
    def tensors(self) -> Mapping[str, SourceTensor]:
        """Every tensor by Hugging Face's name."""

    @property
    def forms(self) -> Mapping[str, Quantization]:
        """How a matrix that is shown unquantized is stored where no other form is asked for, by its path; mostly nothing."""

    @property
    def companions(self) -> Mapping[str, Path | bytes]:
        """The files that go along unchanged (tokenizer, template, license): a file to copy, or its content.

        Raises TokenizerError where the format has no tokenizer of its own and none lies beside it.
        """

    @property
    def notes(self) -> Sequence[str]:
        """What a person should know of how this source is read, said when its conversion begins; mostly nothing."""

    @property
    def fingerprint(self) -> str:
        """A text that changes when the source does; a stopped conversion goes on only where it is the same."""

    def rows(self, name: str, start: int, stop: int) -> Bytes:
        """The bytes of rows ``start`` to ``stop`` of a tensor, shape (bytes,). Raises ReadError."""

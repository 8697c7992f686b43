"""Rows of a token embedding, in memory or on disk."""

# B batch, L tokens, U tokens that differ, V vocabulary, E hidden

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.buffer import DTYPES
from edgellm.checkpoint.checkpoint import TensorGroup
from edgellm.checkpoint.safetensors_file import TensorInfo
from edgellm.models.arithmetic import KERNEL_MODES
from edgellm.models.linear import DenseLinear, QuantizedLinear, linear_from
from edgellm.reading.open_files import OpenFiles

Ids = Sequence[int] | npt.NDArray[np.integer]

_WORD_BITS = 32


class EmbeddingRows:
    """The rows of an embedding (V, E) in memory, equal to ``rows_at`` bit for bit.

    Args:
        weight: dense, or quantized as ``has_rows`` says.
    """

    def __init__(self, weight: DenseLinear | QuantizedLinear) -> None:
        self._quantization = None
        parts = [weight.weight]
        if isinstance(weight, QuantizedLinear):
            assert weight.biases is not None, "has_rows says so"
            self._quantization = weight.quantization
            parts += [weight.scales, weight.biases]
        # of the weight, or of the scales and biases
        self._dtype: mx.Dtype = parts[-1].dtype
        self._parts = [_view(part) for part in parts]

    def __call__(self, ids: Ids) -> npt.NDArray[np.float32]:
        """Return the embeddings (..., E) of token ids (...)."""
        if self._quantization is None:
            return _float32(self._parts[0][ids], self._dtype)
        bits, group = self._quantization.bits, self._quantization.group_size
        codes, scales, biases = (part[ids] for part in self._parts)
        places = np.arange(0, _WORD_BITS, bits, dtype=np.uint32)
        numbers = (codes[..., None] >> places) & np.uint32(2**bits - 1)
        # (..., groups, group)
        rows = numbers.astype(np.float32).reshape(*scales.shape, group)
        rows *= _float32(scales, self._dtype)[..., None]
        rows += _float32(biases, self._dtype)[..., None]
        return rows.reshape(*scales.shape[:-1], -1)


def has_rows(weight: DenseLinear | QuantizedLinear) -> bool:
    """Return whether an embedding is stored in a form that ``EmbeddingRows`` reads."""
    if isinstance(weight, DenseLinear):
        return True
    form = weight.quantization
    return form.mode in KERNEL_MODES and _WORD_BITS % form.bits == 0


class PagedEmbedding:
    """An embedding that reads only the rows asked for.

    Rows are a few KB, so they are read at once, past the queue of the layers.
    """

    def __init__(self, group: TensorGroup, dtype: mx.Dtype) -> None:
        self._group = group
        self._dtype = dtype
        self._files = OpenFiles(direct=False)
        # opened now, so that a folder which is replaced later is read on as it was
        for tensor in group.tensors.values():
            self._files.descriptor(tensor.file)
        self.bytes_read: int = 0

    def __call__(self, tokens: mx.array) -> mx.array:
        """Return the embeddings (B, L, E) of token ids (B, L). Raises ReadError."""
        # (U,), and for each of the B*L tokens its place among them
        rows, places = np.unique(np.array(tokens), return_inverse=True)
        tensors = {
            f"embedding.{part}": self._read(tensor, rows)
            for part, tensor in self._group.tensors.items()
        }
        weight = linear_from(tensors, "embedding", self._group.quantizations[""])
        places = places.reshape(tokens.shape)
        if self._dtype == mx.float32 and has_rows(weight):
            return mx.array(EmbeddingRows(weight)(places))
        return weight.rows_at(mx.array(places), self._dtype)

    def close(self) -> None:
        """Close the files."""
        self._files.close()

    def _read(self, tensor: TensorInfo, rows: npt.NDArray[np.int64]) -> mx.array:
        """Read some rows of a tensor (V, ...): (U, ...)."""
        row_bytes = tensor.nbytes // tensor.shape[0]
        data = np.empty((len(rows), row_bytes), np.uint8)
        for target, row in zip(data, rows.tolist(), strict=True):
            offset = tensor.offset + row * row_bytes
            self._files.fill(tensor.file, memoryview(target), offset, needed=row_bytes)
        self.bytes_read += data.nbytes
        return mx.array(data).view(DTYPES[tensor.dtype]).reshape(len(rows), *tensor.shape[1:])


def _view(array: mx.array) -> npt.NDArray[Any]:
    """Return an array's memory; NumPy, which has no bfloat16, sees its bits."""
    if array.dtype == mx.bfloat16:
        array = array.view(mx.uint16)
    return np.array(array, copy=False)


def _float32(numbers: npt.NDArray[Any], dtype: mx.Dtype) -> npt.NDArray[np.float32]:
    """Return numbers of a type as ``_view`` shows them."""
    if dtype == mx.bfloat16:
        # the upper half of a float32
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.astype(np.float32)

"""A token embedding on disk; only the rows that are asked for are read."""

# B batch, L tokens, U tokens that differ, E hidden

from __future__ import annotations

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.buffer import DTYPES
from edgellm.checkpoint.checkpoint import TensorGroup
from edgellm.checkpoint.safetensors_file import TensorInfo
from edgellm.models.linear import linear_from
from edgellm.reading.open_files import OpenFiles


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
        return weight.rows_at(mx.array(places.reshape(tokens.shape)), self._dtype)

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

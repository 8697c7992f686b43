"""Scales and biases that came along when the weights of a matrix were unpacked.

A block holds codes and scales together, and a conversion asks for a matrix's weights first, then
its scales, then its biases. Kept until then, the blocks are read and unpacked once. Nothing depends
on that order: rows that are not here are unpacked again.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.quantization import QUANTIZED_PARTS
from edgellm.converters.gguf.blocks.affine_blocks import Halves
from edgellm.converters.tensors.source import Bytes

WEIGHT, SCALES, BIASES = QUANTIZED_PARTS

MAX_MATRICES = 8
"""Two files are made at a time, and each has the weights of up to three matrices in a row."""


@dataclass(frozen=True, slots=True)
class _Matrix:
    """Scales and biases (rows, groups), as far as ``filled`` (rows,) says."""

    parts: dict[str, Halves | Bytes]
    filled: npt.NDArray[np.bool_]


class ScaleCache:
    """The scales and biases of the matrices that were unpacked last; threads may share it."""

    def __init__(self) -> None:
        self._matrices: dict[str, _Matrix] = {}
        self._lock = Lock()

    def put(
        self, path: str, rows: int, start: int, scales: Halves | Bytes, biases: Halves | None
    ) -> None:
        """Keep what came along with some rows of a matrix.

        Args:
            path: the matrix's name.
            rows: of the whole matrix.
            start: the first of the rows that came.
            scales: theirs, shape (rows that came, groups).
            biases: as ``scales``; None: the mode has none.
        """
        came = {SCALES: scales}
        if biases is not None:
            came[BIASES] = biases
        with self._lock:
            matrix = self._matrices.pop(path, None)
            if matrix is None:
                parts = {
                    part: np.empty((rows, values.shape[1]), values.dtype)
                    for part, values in came.items()
                }
                matrix = _Matrix(parts, np.zeros(rows, np.bool_))
            self._matrices[path] = matrix  # the newest comes last
            if len(self._matrices) > MAX_MATRICES:
                del self._matrices[next(iter(self._matrices))]
        span = slice(start, start + len(scales))
        for part, values in came.items():
            matrix.parts[part][span] = values
        matrix.filled[span] = True

    def get(self, path: str, part: str, start: int, stop: int) -> Halves | Bytes | None:
        """Return some rows' ``scales`` or ``biases``, shape (rows, groups); None: not all are here.

        The matrix is forgotten with the last rows of its last part, after which nobody asks again
        as a rule.
        """
        with self._lock:
            matrix = self._matrices.get(path)
            if matrix is None or not matrix.filled[start:stop].all():
                return None
            if part == next(reversed(matrix.parts)) and stop == len(matrix.filled):
                del self._matrices[path]
        return matrix.parts[part][start:stop]

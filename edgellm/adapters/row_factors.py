"""DoRA's factors of rows: the length learned over the length that there is."""

# O out, I in, R rank

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgellm.converters.formats import open_format
from edgellm.converters.lora.changes import LowRank
from edgellm.converters.tensors.floats import Floats, floats
from edgellm.converters.tensors.recipe import make_recipe
from edgellm.converters.tensors.settings import ConversionSettings
from edgellm.converters.tensors.weight_stream import CHUNK_BYTES, float_rows
from edgellm.errors import FormatError


class BaseRows:
    """The matrices that an adapter changes, read once and a few rows at a time.

    Args:
        folder: of the model.
    """

    def __init__(self, folder: Path) -> None:
        source = open_format(folder)
        assert source is not None, "a folder is always in a format"
        self._source = source
        self._matrices = make_recipe(source, ConversionSettings()).matrices

    def factors(self, path: str, change: LowRank, up: Floats, down: Floats) -> Floats:
        """Return ``m / ||W + up @ down||`` of each row of a matrix (O,), in float32.

        A row of zeros stays one, as in PEFT's merge.

        Args:
            path: of the matrix.
            change: with the lengths m.
            up: (O, R), its scale included.
            down: (R, I).

        Raises:
            ReadError: a file cannot be read.
            FormatError: a length is infinite or not a number.
        """
        rows, columns = change.shape
        lengths = np.empty(rows, np.float32)
        step = max(1, CHUNK_BYTES // (4 * columns))
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            weight = float_rows(self._source, self._matrices[path], start, stop)
            lengths[start:stop] = np.linalg.norm(weight + up[start:stop] @ down, axis=1)
        lengths[lengths == 0] = 1
        magnitude = change.magnitude_values()
        assert magnitude is not None, "only DoRA's rows have factors"
        found: Floats = magnitude / lengths
        if not np.isfinite(found).all():
            raise FormatError(
                f"a length that the adapter gives a row of {path} is infinite or not a number"
            )
        return found

    def bias(self, path: str) -> Floats | None:
        """Return a matrix's bias in float32; None: it has none. Raises ReadError."""
        name = f"{path}.bias"
        tensor = self._source.tensors.get(name)
        if tensor is None:
            return None
        return floats(self._source.rows(name, 0, tensor.rows), tensor.dtype)

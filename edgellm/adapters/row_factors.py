"""DoRA's factors of rows: the length learned over the length that there is."""

# O out, I in, R rank

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgellm.converters.formats import open_format
from edgellm.converters.lora.changes import row_factors
from edgellm.converters.tensors.floats import Floats, floats
from edgellm.converters.tensors.recipe import make_recipe
from edgellm.converters.tensors.settings import ConversionSettings
from edgellm.converters.tensors.weight_stream import float_rows, row_parts
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

    def factors(self, path: str, magnitude: Floats, up: Floats, down: Floats) -> Floats:
        """Return ``m / ||W + up @ down||`` of each row of a matrix (O,), in float32.

        A row of zeros stays one.

        Args:
            path: of the matrix.
            magnitude: the lengths m (O,).
            up: (O, R), its scale included.
            down: (R, I).

        Raises:
            ReadError: a file cannot be read.
            FormatError: a length is infinite or not a number.
        """
        found = np.empty(len(up), np.float32)
        for start, stop in row_parts(len(up), down.shape[1]):
            weight = float_rows(self._source, self._matrices[path], start, stop)
            changed = weight + up[start:stop] @ down
            found[start:stop] = row_factors(changed, magnitude[start:stop])
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

"""DoRA's factors of rows: the length learned over the length that there is."""

# O out, I in, R rank

from __future__ import annotations

import numpy as np

from edgellm.adapters.model_matrices import ModelMatrices
from edgellm.converters.lora.changes import row_factors
from edgellm.converters.tensors.floats import Floats
from edgellm.converters.tensors.weight_stream import row_parts
from edgellm.errors import FormatError


def factors_of_rows(
    base: ModelMatrices, path: str, magnitude: Floats, up: Floats, down: Floats
) -> Floats:
    """Return ``m / ||W + up @ down||`` of each row of a matrix (O,), in float32.

    A row of zeros stays one. W is read once, a few rows at a time.

    Args:
        base: the model.
        path: of the matrix W.
        magnitude: the lengths m (O,).
        up: (O, R), its scale included.
        down: (R, I).

    Raises:
        ReadError: a file cannot be read.
        FormatError: a length, or a number of W, is infinite or not a number.
    """
    found = np.empty(len(up), np.float32)
    for start, stop in row_parts(len(up), down.shape[1]):
        changed = base.rows(path, start, stop) + up[start:stop] @ down
        found[start:stop] = row_factors(changed, magnitude[start:stop])
    if not np.isfinite(found).all():
        raise FormatError(
            f"a length that the adapter gives a row of {path} is infinite or not a number"
        )
    return found

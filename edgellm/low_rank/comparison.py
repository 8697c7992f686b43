"""Two models before and after tuning: whether they are one, and what else differs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgellm.adapters.model_matrices import ModelMatrices
from edgellm.checkpoint.folder import LAYER_PREFIX
from edgellm.converters.tensors.weight_stream import row_parts
from edgellm.errors import FormatError

ROUNDING: Mapping[str, float] = {"F32": 0.0, "F16": 2.0**-10, "BF16": 2.0**-7}
"""How far a number may be from itself, of its size, after it was stored in another type."""


def require_same_shapes(tuned: ModelMatrices, base: ModelMatrices) -> None:
    """Raise FormatError where the layers of two models are not of the same matrices."""
    one, other = (
        {path: matrix.shape for path, matrix in model.matrices.items() if is_inner(path)}
        for model in (tuned, base)
    )
    differing = [path for path in {**one, **other} if one.get(path) != other.get(path)]
    if differing:
        path = differing[0]
        raise FormatError(
            f"{tuned.path} and {base.path} are not one model before and after: {path} is "
            f"{one.get(path, 'missing')} and {other.get(path, 'missing')}",
            hint="name the model that the tuned one was made from",
        )


def changed_vectors(tuned: ModelMatrices, base: ModelMatrices) -> list[str]:
    """Return the names of norms and biases that differ by more than rounding.

    Raises:
        ReadError: one cannot be read.
    """
    changed = []
    for name in {**tuned.vectors, **base.vectors}:
        if tuned.vectors.get(name) != base.vectors.get(name):
            changed.append(name)
            continue
        (one, one_type), (other, other_type) = tuned.vector(name), base.vector(name)
        allowed = 0.0
        if one_type != other_type:
            allowed = max(ROUNDING[one_type], ROUNDING[other_type])
        if (np.abs(one - other) > allowed * np.abs(other)).any():
            changed.append(name)
    return changed


def changed_outer(tuned: ModelMatrices, base: ModelMatrices) -> list[str]:
    """Return which of embedding and head differ, by more than rounding where both are numbers.

    Raises:
        ReadError: one cannot be read.
    """
    changed = []
    for path in {**tuned.matrices, **base.matrices}:
        if is_inner(path):
            continue
        one, other = tuned.matrices.get(path), base.matrices.get(path)
        if one is None or other is None or one.shape != other.shape or _differ(path, tuned, base):
            changed.append(path)
    return changed


def is_inner(path: str) -> bool:
    """Return whether a matrix is a layer's."""
    return path.startswith(LAYER_PREFIX)


def _differ(path: str, tuned: ModelMatrices, base: ModelMatrices) -> bool:
    one, other = tuned.matrices[path], base.matrices[path]
    allowed = 0.0
    if one.stored is None and other.stored is None and one.dtype != other.dtype:
        allowed = max(ROUNDING[one.dtype], ROUNDING[other.dtype])
    for start, stop in row_parts(*one.shape):
        before = base.rows(path, start, stop)
        if (np.abs(tuned.rows(path, start, stop) - before) > allowed * np.abs(before)).any():
            return True
    return False

"""Matrices of models in float32, one at a time, and what one model has more than another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgellm.checkpoint.dialects.names import Spelling
from edgellm.converters.formats import FORMATS, open_format
from edgellm.converters.tensors.floats import Floats, floats
from edgellm.converters.tensors.recipe import Matrix, Recipe, first_few, make_recipe
from edgellm.converters.tensors.settings import ConversionSettings
from edgellm.converters.tensors.source import Source
from edgellm.converters.tensors.weight_stream import float_rows, row_parts
from edgellm.errors import FormatError
from edgellm.files.given_path import given_path
from edgellm.hub.resolve import locate

ROUNDING: Mapping[str, float] = {"F32": 0.0, "F16": 2.0**-10, "BF16": 2.0**-7}
"""How far a number may be from itself, of its size, after it was stored in another type."""


class ModelMatrices:
    """A model whose matrices are read in float32, however they are stored.

    Args:
        model: a folder or file in any format, a Hub id or a bundled name.

    Raises:
        ModelNotFoundError, DownloadError: nothing has this name.
        FormatError, UnsupportedModelError, ReadError: it is damaged, or of an unknown kind.
    """

    def __init__(self, model: str | Path) -> None:
        path = given_path(model)
        if not path.exists():
            path = locate(model)
        opened = open_format(path)
        if opened is None:
            known = ", ".join(item.name for item in FORMATS)
            raise FormatError(
                f"{path} is in a format that edgellm does not know",
                hint=f"name a folder or file of {known}",
            )
        self.path: Path = path
        self._source: Source = opened
        self.recipe: Recipe = make_recipe(opened, ConversionSettings())
        self.matrices: Mapping[str, Matrix] = self.recipe.matrices

    @property
    def spelling(self) -> Spelling | None:
        """How its tensors are made of the stored ones; None: they are stored as ours."""
        return getattr(self._source, "spelling", None)

    @property
    def vectors(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes of the tensors that are no part of a matrix: norms and biases."""
        return {
            tensor.name: tensor.shape
            for file in self.recipe.files
            for tensor in file.tensors
            if tensor.matrix is None
        }

    def rows(self, path: str, start: int, stop: int) -> Floats:
        """Read some rows of a matrix. Raises ReadError, FormatError."""
        rows = float_rows(self._source, self.matrices[path], start, stop)
        if not np.isfinite(rows).all():
            raise FormatError(
                f"{path} of {self.path} holds a value that is infinite or not a number"
            )
        return rows

    def matrix(self, path: str, less: ModelMatrices | None = None) -> Floats:
        """Read a matrix, less the same one of another model. Raises ReadError, FormatError."""
        values = np.empty(self.matrices[path].shape, np.float32)
        for start, stop in row_parts(*values.shape):
            values[start:stop] = self.rows(path, start, stop)
            if less is not None:
                values[start:stop] -= less.rows(path, start, stop)
        return values

    def vector(self, name: str) -> tuple[Floats, str]:
        """Read a norm or a bias, and the type that it is stored in. Raises ReadError."""
        tensor = self._source.tensors[name]
        return floats(self._source.rows(name, 0, tensor.rows), tensor.dtype), tensor.dtype


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
    return path.startswith("model.layers.")


def named(matrices: Mapping[str, object], wanted: str, place: str) -> list[str]:
    """Return the matrices of a name, of its end, or of a pattern with ``*``.

    Raises:
        FormatError: there is none.
    """
    from fnmatch import fnmatchcase

    wanted = wanted.removesuffix(".weight")
    if wanted in matrices:
        return [wanted]
    found = [
        path for path in matrices if fnmatchcase(path, wanted) or fnmatchcase(path, f"*.{wanted}")
    ]
    if not found:
        raise FormatError(
            f"{place} has no matrix {wanted!r}",
            hint=f"name one, or several with *: {first_few(list(matrices))}",
        )
    return found


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

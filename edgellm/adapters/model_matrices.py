"""Matrices of models in float32, one at a time or some rows, however they are stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from edgellm.checkpoint.dialects.names import Spelling
from edgellm.converters.formats import FORMATS, open_format
from edgellm.converters.tensors.floats import Floats, floats
from edgellm.converters.tensors.recipe import Matrix, Recipe, make_recipe
from edgellm.converters.tensors.settings import ConversionSettings
from edgellm.converters.tensors.source import Source
from edgellm.converters.tensors.weight_stream import float_rows, row_parts
from edgellm.errors import FormatError
from edgellm.files.given_path import given_path
from edgellm.hub.resolve import locate

Progress = Callable[[int, int, str], None]
"""Called before each matrix with how many came before it, of how many, and its path."""


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

    def bias(self, path: str) -> Floats | None:
        """Read a matrix's bias; None: it has none. Raises ReadError."""
        name = f"{path}.bias"
        if name not in self._source.tensors:
            return None
        return self.vector(name)[0]

    def vector(self, name: str) -> tuple[Floats, str]:
        """Read a norm or a bias, and the type that it is stored in. Raises ReadError."""
        tensor = self._source.tensors[name]
        return floats(self._source.rows(name, 0, tensor.rows), tensor.dtype), tensor.dtype

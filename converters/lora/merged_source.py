"""A model with an adapter merged into it, as a source: rows are changed as they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from edgellm.checkpoint.quantization import QUANTIZED_PARTS, Quantization
from edgellm.converters.huggingface.torch_file import read_rows
from edgellm.converters.lora.adapter import TIED, open_adapter
from edgellm.converters.lora.changes import (
    Adapter,
    LowRank,
    Replacement,
    finite,
    quotient,
    row_factors,
)
from edgellm.converters.lora.our_words import in_our_words
from edgellm.converters.lora.state_dict import FILES_TELL, AdapterSettings, BaseShape
from edgellm.converters.lora.untied_source import UntiedSource
from edgellm.converters.tensors.file_rows import files_fingerprint
from edgellm.converters.tensors.floats import Floats, stored
from edgellm.converters.tensors.recipe import Matrix, first_few, make_recipe
from edgellm.converters.tensors.settings import ConversionSettings
from edgellm.converters.tensors.source import (
    Bytes,
    DerivedSource,
    Source,
    SourceTensor,
    have_same_rows,
)
from edgellm.converters.tensors.weight_stream import float_rows, row_parts
from edgellm.errors import FormatError


@dataclass(frozen=True, slots=True)
class _Factors:
    """A change's factors in float32.

    Attributes:
        path: the path of the matrix.
        up: (rows, rank).
        down: (rank, columns).
        magnitude: the length of each row (rows,).
        stretch: what each column is multiplied by in the end (columns,).
    """

    path: str
    up: Floats
    down: Floats
    magnitude: Floats | None = None
    stretch: Floats | None = None


class MergedSource(DerivedSource):
    """A source with an adapter's changes; changed matrices are shown unquantized.

    Args:
        base: the model.
        path: the adapter's folder or file.
        settings: what a file without a config does not tell.

    Raises:
        ConfigError: the settings are missing, or are told by the adapter itself.
        FormatError: the adapter is damaged, or changes what the model does not have.
        UnsupportedModelError: it is of another kind than LoRA and DoRA.
    """

    def __init__(self, base: Source, path: Path, settings: AdapterSettings = FILES_TELL) -> None:
        recipe = make_recipe(base, ConversionSettings())
        shapes = {name: matrix.shape for name, matrix in recipe.matrices.items()}
        self._adapter = adapter = open_adapter(
            path, BaseShape(shapes, recipe.config["head_dim"]), settings
        )
        spelling = getattr(base, "spelling", None)
        if spelling is not None:
            self._adapter = adapter = in_our_words(adapter, spelling)
        if TIED[1] not in recipe.matrices:
            self._adapter = adapter = _for_tied_head(adapter)
            if adapter.own_head:
                base = UntiedSource(base)
                recipe = make_recipe(base, ConversionSettings())
        super().__init__(base)
        self._settings = settings
        self._changed: dict[str, Matrix] = {
            name: recipe.matrices[name] for name in self._require_known(recipe.matrices)
        }
        self.merged: int = (
            len(adapter.changes) + len(adapter.replacements) + len(adapter.token_rows)
        )
        self.tensors: dict[str, SourceTensor] = dict(base.tensors)
        self.forms: dict[str, Quantization] = dict(base.forms)
        for name, matrix in self._changed.items():
            for part in QUANTIZED_PARTS:
                self.tensors.pop(f"{name}.{part}", None)
            self.tensors[f"{name}.weight"] = _as_numbers(base, matrix)
            if matrix.stored is not None:
                self.forms[name] = matrix.stored
        self._loaded: _Factors | None = None

    @property
    def fingerprint(self) -> str:
        """The base's, the adapter's, and what was said of it."""
        files = files_fingerprint(self._adapter.files)
        return f"{self._base.fingerprint}{files}{self._settings}"

    @property
    def low_rank_paths(self) -> list[str]:
        """The matrices that have a low-rank change, in the model's order."""
        return [path for path in self._changed if path in self._adapter.changes]

    def base_and_change(self, path: str, start: int, stop: int) -> tuple[Floats, Floats]:
        """Return rows of a matrix before its change, and what the change adds to them."""
        base = self._plain_rows(path, start, stop)
        return base, self._matrix_rows(path, start, stop) - base

    def rows(self, name: str, start: int, stop: int) -> Bytes:
        """Read the bytes of some rows, changed where the adapter changes them."""
        path = name.rpartition(".")[0]
        if path in self._changed and name.endswith(".weight"):
            return stored(self._matrix_rows(path, start, stop), self.tensors[name].dtype)
        replacement = self._adapter.replacements.get(name)
        if replacement is None:
            return self._base.rows(name, start, stop)
        return stored(replacement.values(start, stop), self.tensors[name].dtype)

    def _matrix_rows(self, path: str, start: int, stop: int) -> Floats:
        """Return rows of a matrix as the adapter makes them, shape (rows, columns)."""
        weight = self._plain_rows(path, start, stop)
        change = self._adapter.changes.get(path)
        if change is not None:
            factors = self._factors(path, change)
            weight = change.applied(weight, factors.up[start:stop], factors.down)
            with np.errstate(over="ignore", invalid="ignore"):
                if factors.magnitude is not None:
                    weight *= row_factors(weight, factors.magnitude[start:stop])[:, None]
                if factors.stretch is not None:
                    weight *= factors.stretch
        return weight

    def _plain_rows(self, path: str, start: int, stop: int) -> Floats:
        """Return rows of a matrix before its change: the base's, or the adapter's own.

        Rows of single tokens are among them: PEFT changes a matrix that has its new rows.
        """
        # PEFT saves an embedding that it changes with the change, so both may be there
        replacement = self._adapter.replacements.get(f"{path}.weight")
        if replacement is None:
            weight = float_rows(self._base, self._changed[path], start, stop)
        else:
            weight = replacement.values(start, stop).reshape(stop - start, -1)
        brought = self._adapter.token_rows.get(path)
        if brought is not None:
            for at, token in enumerate(brought.ids):
                if start <= token < stop:
                    weight[token - start] = brought.row(at)
        return weight

    def _require_known(self, matrices: Mapping[str, Matrix]) -> list[str]:
        """Check each change's shape, and return the paths of the matrices that change."""
        changes, token_rows = self._adapter.changes, self._adapter.token_rows
        replacements = {
            name.removesuffix(".weight"): tensor
            for name, tensor in self._adapter.replacements.items()
        }
        unknown = [path for path in {**changes, **token_rows} if path not in matrices]
        unknown += [name for name in self._adapter.replacements if name not in self._base.tensors]
        if unknown:
            raise FormatError(
                f"the adapter changes what the model does not have: {first_few(unknown)}",
                hint="it may belong to another model; adapter_config.json names its base",
            )
        for path, change in changes.items():
            shape = matrices[path].shape
            if change.shape != shape:
                raise FormatError(
                    f"the adapter's change of {path} is {change.shape}; the matrix is {shape}"
                )
        for path, tensor in replacements.items():
            expected = self._shape(path, matrices)
            if tensor.shape != expected:
                raise FormatError(
                    f"the adapter brings {path} as {tensor.shape}; the model has {expected}"
                )
        for path, brought in token_rows.items():
            tokens, features = matrices[path].shape
            if brought.tensor.info.shape[1] != features or max(brought.ids) >= tokens:
                raise FormatError(
                    f"the adapter brings rows of {path} in the shape {brought.tensor.info.shape}, "
                    f"up to token {max(brought.ids)}; the model has {matrices[path].shape}"
                )
        return [path for path in {**changes, **replacements, **token_rows} if path in matrices]

    def _shape(self, path: str, matrices: Mapping[str, Matrix]) -> tuple[int, ...]:
        if path in matrices:
            return matrices[path].shape
        tensors = self._base.tensors
        return (tensors.get(path) or tensors[f"{path}.weight"]).shape

    def _factors(self, path: str, change: LowRank) -> _Factors:
        """Read a change's factors; the last matrix's are held, since its rows come in turn."""
        if self._loaded is None or self._loaded.path != path:
            magnitude = change.magnitude_values()
            loaded = _Factors(path, change.up_values(), change.down.values(), magnitude)
            for values in (loaded.up, loaded.down, magnitude):
                if values is not None:
                    finite(values, path)
            if magnitude is not None and change.by_column:
                lengths = self._column_lengths(path, change, loaded)
                stretch = quotient(magnitude, lengths)
                loaded = _Factors(path, loaded.up, loaded.down, stretch=stretch)
            self._loaded = loaded
        return self._loaded

    def _column_lengths(self, path: str, change: LowRank, factors: _Factors) -> Floats:
        """Return the length of each column of a changed matrix; its rows are read for it."""
        squares = np.zeros(change.shape[1])
        with np.errstate(over="ignore", invalid="ignore"):
            for start, stop in row_parts(*change.shape):
                weight = self._plain_rows(path, start, stop)
                changed = change.applied(weight, factors.up[start:stop], factors.down)
                squares += np.square(changed, dtype=np.float64).sum(axis=0)
            return np.sqrt(squares).astype(np.float32)


def _for_tied_head(adapter: Adapter) -> Adapter:
    """Return an adapter as it is for a model whose head is its embedding."""
    names = [f"{path}.weight" for path in TIED]
    brought = [adapter.replacements[name] for name in names if name in adapter.replacements]
    replacements = dict(adapter.replacements)
    rows = adapter.token_rows.get(TIED[0])
    if rows is not None and TIED[1] in adapter.changes and TIED[1] not in adapter.token_rows:
        # trained as rows of both, and saved once
        return replace(adapter, token_rows=dict(adapter.token_rows) | {TIED[1]: rows})
    if len(brought) == 2 and not {*adapter.changes, *adapter.token_rows}.intersection(TIED):
        if _is_same(*brought):  # trained as one
            del replacements[names[1]]
            return replace(adapter, replacements=replacements, own_head=False)
    elif len(brought) == 1 and not adapter.saved_bases.isdisjoint(names):
        # saved with the change of one, it is what both begin from
        return replace(adapter, replacements=replacements | dict.fromkeys(names, brought[0]))
    return adapter


def _is_same(first: Replacement, second: Replacement) -> bool:
    """Return whether two matrices hold the same bytes. Raises ReadError."""
    one, other = first.tensor, second.tensor
    if (one.info.shape, one.info.dtype) != (other.info.shape, other.info.dtype):
        return False
    shown = SourceTensor(one.info.dtype, one.info.shape)
    return have_same_rows(shown, partial(read_rows, one), partial(read_rows, other))


def _as_numbers(base: Source, matrix: Matrix) -> SourceTensor:
    """Return a matrix unquantized, in the type that its numbers or scales have in the base."""
    part = "scales" if matrix.stored else "weight"
    tensor = base.tensors[f"{matrix.path}.{part}"]
    return SourceTensor(tensor.dtype, matrix.shape, tensor.becomes)

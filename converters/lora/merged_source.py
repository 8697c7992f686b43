"""A model with an adapter merged into it, as a source: rows are changed as they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.checkpoint.quantization import QUANTIZED_PARTS, Quantization
from edgellm.converters.huggingface.torch_file import read_rows
from edgellm.converters.lora.adapter import LowRank, read_adapter, read_values
from edgellm.converters.tensors.file_rows import files_fingerprint
from edgellm.converters.tensors.floats import Floats, floats, stored
from edgellm.converters.tensors.recipe import ConversionSettings, Matrix, first_few, make_recipe
from edgellm.converters.tensors.source import Bytes, Source, SourceTensor
from edgellm.converters.tensors.weight_stream import float_rows
from edgellm.errors import FormatError, UnsupportedModelError

EMBEDDING = "model.embed_tokens"


@dataclass(frozen=True, slots=True)
class _Factors:
    """A change's factors in float32: up (rows, rank), down (rank, columns), magnitude (rows,)."""

    path: str
    up: Floats
    down: Floats
    magnitude: Floats | None


class MergedSource:
    """A source with an adapter's changes; changed matrices are shown unquantized.

    Args:
        base: the model.
        path: the adapter's folder.

    Raises:
        FormatError: the adapter is damaged, or changes what the model does not have.
        UnsupportedModelError: it is of another kind than LoRA and DoRA.
    """

    def __init__(self, base: Source, path: Path) -> None:
        self._base = base
        self._adapter = read_adapter(path)
        recipe = make_recipe(base, ConversionSettings())
        self._changed: dict[str, Matrix] = {
            name: recipe.matrices[name] for name in self._require_known(recipe.matrices)
        }
        self.merged = len(self._adapter.changes) + len(self._adapter.replacements)
        self.config: Mapping[str, Any] = base.config
        self.tensors: dict[str, SourceTensor] = dict(base.tensors)
        self.forms: dict[str, Quantization] = dict(base.forms)
        for name, matrix in self._changed.items():
            for part in QUANTIZED_PARTS:
                self.tensors.pop(f"{name}.{part}", None)
            self.tensors[f"{name}.weight"] = SourceTensor(_own_dtype(base, matrix), matrix.shape)
            if matrix.stored is not None:
                self.forms[name] = matrix.stored
        self._loaded: _Factors | None = None

    @property
    def companions(self) -> Mapping[str, Path | bytes]:
        """The base's own."""
        return self._base.companions

    @property
    def notes(self) -> Sequence[str]:
        """The base's own."""
        return self._base.notes

    @property
    def fingerprint(self) -> str:
        """The base's and the adapter's."""
        return self._base.fingerprint + files_fingerprint(self._adapter.files)

    def rows(self, name: str, start: int, stop: int) -> Bytes:
        """Read the bytes of some rows, changed where the adapter changes them."""
        path = name.rpartition(".")[0]
        change = self._adapter.changes.get(path)
        replacement = self._adapter.replacements.get(name)
        if not name.endswith(".weight"):  # a bias, which no product of matrices changes
            change = None
        if change is None and replacement is None:
            return self._base.rows(name, start, stop)
        dtype = self.tensors[name].dtype
        if replacement is not None:
            # PEFT saves an embedding that it changes with the change, so both may be there
            values = floats(read_rows(replacement, start, stop), replacement.info.dtype)
            weight = values.reshape(stop - start, -1)
        else:
            weight = float_rows(self._base, self._changed[path], start, stop)
        if change is None:
            return stored(weight, dtype)
        factors = self._factors(path, change)
        magnitude = factors.magnitude
        if magnitude is not None:
            magnitude = magnitude[start:stop]
        merged = change.applied(weight, factors.up[start:stop], factors.down, magnitude)
        return stored(merged, dtype)

    def _require_known(self, matrices: Mapping[str, Matrix]) -> list[str]:
        """Check each change's shape, and return the paths of the matrices that change."""
        changes = self._adapter.changes
        replacements = {
            name.removesuffix(".weight"): tensor
            for name, tensor in self._adapter.replacements.items()
        }
        unknown = [path for path in changes if path not in matrices]
        unknown += [name for name in self._adapter.replacements if name not in self._base.tensors]
        if unknown:
            raise FormatError(
                f"the adapter changes what the model does not have: {first_few(unknown)}",
                hint="it may belong to another model; adapter_config.json names its base",
            )
        if EMBEDDING in {*changes, *replacements} and "lm_head" not in matrices:
            raise UnsupportedModelError(
                "the adapter changes the embedding, which in this model is the head as well",
                hint="merge it with PEFT (merge_and_unload), and convert the result",
            )
        for path, change in changes.items():
            shape = matrices[path].shape
            if change.shape != shape:
                raise FormatError(
                    f"the adapter's change of {path} is {change.shape}; the matrix is {shape}"
                )
        for path, tensor in replacements.items():
            expected = self._shape(path, matrices)
            if tensor.info.shape != expected:
                raise FormatError(
                    f"the adapter brings {path} as {tensor.info.shape}; the model has {expected}"
                )
        return [path for path in {**changes, **replacements} if path in matrices]

    def _shape(self, path: str, matrices: Mapping[str, Matrix]) -> tuple[int, ...]:
        if path in matrices:
            return matrices[path].shape
        tensors = self._base.tensors
        return (tensors.get(path) or tensors[f"{path}.weight"]).shape

    def _factors(self, path: str, change: LowRank) -> _Factors:
        """Read a change's factors; the last matrix's are held, since its rows come in turn."""
        if self._loaded is None or self._loaded.path != path:
            magnitude = None
            if change.magnitude is not None:
                magnitude = read_values(change.magnitude).reshape(-1)
            loaded = _Factors(path, change.up.values(), change.down.values(), magnitude)
            for values in (loaded.up, loaded.down, magnitude):
                if values is not None and not np.isfinite(values).all():
                    raise FormatError(
                        f"the adapter's change of {path} holds a value that is infinite "
                        "or not a number"
                    )
            self._loaded = loaded
        return self._loaded


def _own_dtype(base: Source, matrix: Matrix) -> str:
    part = "scales" if matrix.stored else "weight"
    return base.tensors[f"{matrix.path}.{part}"].dtype

"""A model with an adapter merged into it, as a source: each matrix is changed when its rows are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.checkpoint.quantization import QUANTIZED_PARTS, Quantization
from edgellm.converters.huggingface.torch_file import read_rows
from edgellm.converters.lora.adapter import LowRank, read_adapter, whole_values
from edgellm.converters.tensors.file_rows import files_fingerprint
from edgellm.converters.tensors.floats import Floats, floats, stored
from edgellm.converters.tensors.recipe import ConversionSettings, Matrix, make_recipe
from edgellm.converters.tensors.source import Bytes, Source, SourceTensor
from edgellm.converters.tensors.weight_stream import float_rows
from edgellm.errors import FormatError, UnsupportedModelError
from edgellm.files.strict_json import shown

EMBEDDING = "model.embed_tokens"


class AdapterSource:
    """A source with an adapter's changes; matrices that were quantized are shown as they are merged, to be quantized again.

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
        self.merged = len(self._adapter.changes) + len(self._adapter.whole)
        self.config: Mapping[str, Any] = base.config
        self.tensors: dict[str, SourceTensor] = dict(base.tensors)
        self.forms: dict[str, Quantization] = dict(base.forms)
        for name, matrix in self._changed.items():
            for part in QUANTIZED_PARTS:
                self.tensors.pop(f"{name}.{part}", None)
            self.tensors[f"{name}.weight"] = SourceTensor(_own_dtype(base, matrix), matrix.shape)
            if matrix.stored is not None:
                self.forms[name] = matrix.stored
        self._loaded: tuple[str, Floats, Floats, Floats | None] | None = None

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

    @property
    def requantizes(self) -> bool:
        """Whether what is merged was quantized."""
        return any(matrix.stored is not None for matrix in self._changed.values())

    def rows(self, name: str, start: int, stop: int) -> Bytes:
        """The bytes of some rows, changed where the adapter changes them."""
        path = name.rpartition(".")[0]
        change, whole = self._adapter.changes.get(path), self._adapter.whole.get(name)
        if change is None or not name.endswith(".weight"):
            if whole is None:
                return self._base.rows(name, start, stop)
            return stored(
                floats(read_rows(whole, start, stop), whole.info.dtype), self.tensors[name].dtype
            )
        up, down, magnitude = self._parts(path, change)
        if whole is None:
            weight = float_rows(self._base, self._changed[path], start, stop)
        else:  # PEFT saves an embedding that it changes with the change
            weight = floats(read_rows(whole, start, stop), whole.info.dtype).reshape(
                stop - start, -1
            )
        merged = change.applied(
            weight, up[start:stop], down, None if magnitude is None else magnitude[start:stop]
        )
        return stored(merged, self.tensors[name].dtype)

    def _require_known(self, matrices: Mapping[str, Matrix]) -> list[str]:
        """The paths of the matrices that change, after a look at each change's shape."""
        whole = {
            name.removesuffix(".weight"): tensor for name, tensor in self._adapter.whole.items()
        }
        unknown = [path for path in self._adapter.changes if path not in matrices]
        unknown += [name for name in self._adapter.whole if name not in self._base.tensors]
        if unknown:
            more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
            raise FormatError(
                f"the adapter changes what the model does not have: {', '.join(map(shown, sorted(unknown)[:3]))}{more}",
                hint="it may belong to another model; adapter_config.json names its base",
            )
        if EMBEDDING in {*self._adapter.changes, *whole} and "lm_head" not in matrices:
            raise UnsupportedModelError(
                "the adapter changes the embedding, which in this model is the head as well"
            )
        for path, change in self._adapter.changes.items():
            if change.shape != matrices[path].shape:
                raise FormatError(
                    f"the adapter's change of {path} is {change.shape}; the matrix is {matrices[path].shape}"
                )
        for path, tensor in whole.items():
            shape = (
                matrices[path].shape
                if path in matrices
                else self._base.tensors[self._name(path)].shape
            )
            if tensor.info.shape != shape:
                raise FormatError(
                    f"the adapter brings {path} as {tensor.info.shape}; the model has {shape}"
                )
        return [path for path in {**self._adapter.changes, **whole} if path in matrices]

    def _name(self, path: str) -> str:
        return path if path in self._base.tensors else f"{path}.weight"

    def _parts(self, path: str, change: LowRank) -> tuple[Floats, Floats, Floats | None]:
        """The change's factors; those of one matrix are kept, since its rows are asked for in turn."""
        if self._loaded is None or self._loaded[0] != path:
            up, down = whole_values(change.up), whole_values(change.down)
            magnitude = (
                None if change.magnitude is None else whole_values(change.magnitude).reshape(-1)
            )
            for values in (up, down, *([] if magnitude is None else [magnitude])):
                if not np.isfinite(values).all():
                    raise FormatError(
                        f"the adapter's change of {path} holds a value that is infinite or not a number"
                    )
            self._loaded = (
                path,
                up.T if change.up_turned else up,
                down.T if change.down_turned else down,
                magnitude,
            )
        return self._loaded[1:]


def _own_dtype(base: Source, matrix: Matrix) -> str:
    return base.tensors[f"{matrix.path}.scales" if matrix.stored else f"{matrix.path}.weight"].dtype

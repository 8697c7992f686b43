"""An adapter's folder as it is stored: its form, its config, its changes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from edgellm.checkpoint.folder import ADAPTER_CONFIG, inside
from edgellm.checkpoint.tensor_order import STACKS
from edgellm.converters.lora.adapter import MLX_FILE, read_adapter
from edgellm.converters.lora.changes import Adapter, LowRank, finite
from edgellm.converters.tensors.floats import Floats
from edgellm.converters.tensors.recipe import first_few
from edgellm.errors import UnsupportedModelError
from edgellm.files.given_path import given_path
from edgellm.files.strict_json import read_json

LAYER = re.compile(r"(?P<before>(?:.*?\.)?)(?P<layer>0|[1-9][0-9]{0,5})\.(?P<inner>.+)")
"""A matrix of a layer: what stands before the layer's number, and the name inside of it."""

AdapterForm = Literal["peft", "mlx-lm"]

BASE_KEYS = {"peft": "base_model_name_or_path", "mlx-lm": "model"}
"""Where a config names the model that the adapter belongs to."""


@dataclass(frozen=True, slots=True)
class Change:
    """A matrix's change, ``scale * up @ down``, in memory.

    Attributes:
        up: (O, R).
        down: (R, I).
        scale: what the product is multiplied by.
        dtype: that the factors are stored in.
        magnitude: DoRA's lengths of rows (O,); None: plain LoRA.
        is_embedding: whether the matrix is an embedding, (tokens, features).
    """

    up: Floats
    down: Floats
    scale: float
    dtype: str = "F32"
    magnitude: Floats | None = None
    is_embedding: bool = False

    @property
    def rank(self) -> int:
        """R."""
        return int(self.down.shape[0])


@dataclass(frozen=True, slots=True)
class StoredAdapter:
    """A folder whose values are not read yet.

    Attributes:
        path: the folder.
        form: whose.
        config: what ``adapter_config.json`` holds.
        adapter: its changes.
    """

    path: Path
    form: AdapterForm
    config: Mapping[str, Any]
    adapter: Adapter

    @property
    def base(self) -> str | None:
        """The model that it belongs to, as its config names it; None: it does not."""
        said = self.config.get(BASE_KEYS[self.form])
        if isinstance(said, str) and said:
            return said
        return None

    def change(self, path: str) -> Change:
        """Read the change of a matrix.

        Raises:
            ReadError: a file cannot be read.
            FormatError: a value is infinite or not a number.
        """
        stored = self.adapter.changes[path]
        lengths = stored.magnitude_values()
        return Change(
            up=finite(stored.up_values(), path),
            down=finite(stored.down.values(), path),
            scale=stored.scale,
            dtype=_dtype(stored),
            magnitude=None if lengths is None else finite(lengths, path),
            is_embedding=self.is_embedding(path),
        )

    def is_embedding(self, path: str) -> bool:
        """Return whether a changed matrix is an embedding."""
        # an embedding's factors are turned in PEFT, all others' in mlx-lm
        return self.adapter.changes[path].up.transposed == (self.form == "peft")


def open_stored(path: str | Path) -> StoredAdapter:
    """Open an adapter's folder in PEFT's or mlx-lm's form, without its values.

    Raises:
        ModelNotFoundError: there is no such folder.
        FormatError: it is damaged, or is not an adapter.
        UnsupportedModelError: it is of another kind than LoRA and DoRA.
        ReadError: a file cannot be read.
    """
    path = given_path(path)
    adapter = read_adapter(path)
    ordered = sorted(adapter.changes, key=_place)
    adapter = replace(adapter, changes={name: adapter.changes[name] for name in ordered})
    form: AdapterForm = "mlx-lm" if adapter.files[0].name == MLX_FILE else "peft"
    return StoredAdapter(path, form, read_json(inside(path, ADAPTER_CONFIG)), adapter)


def is_adapter(path: Path) -> bool:
    """Return whether a path is the folder of an adapter."""
    return (path / ADAPTER_CONFIG).exists()


def require_products_alone(stored: StoredAdapter, task: str) -> None:
    """Raise UnsupportedModelError where an adapter does more than change matrices by products.

    Args:
        stored: the adapter.
        task: what cannot be done with the rest: ``be converted``.
    """
    adapter = stored.adapter
    rest = {
        "whole tensors": list(adapter.replacements),
        "rows of single tokens": list(adapter.token_rows),
    }
    for kind, names in rest.items():
        if names:
            raise UnsupportedModelError(
                f"{stored.path} brings {kind} ({first_few(names)}), which cannot {task}",
                hint=f"merge it into its base: edgellm convert BASE DEST --adapter {stored.path}",
            )


def inner_name(path: str) -> str:
    """Return a matrix's name inside its layer; of others, the path."""
    found = LAYER.fullmatch(path)
    if found is None:
        return path
    return found["inner"]


def layer_of(path: str) -> int | None:
    """Return the number of a matrix's layer; None: it belongs to none."""
    found = LAYER.fullmatch(path)
    if found is None:
        return None
    return int(found["layer"])


def _place(path: str) -> tuple[float, float, str]:
    """Return what sorts matrices as a layer computes them, those outside of layers last."""
    layer, inner = layer_of(path), inner_name(path)
    members = [member for stack in STACKS.values() for member in stack]
    within = math.inf if inner not in members else members.index(inner)
    return (math.inf if layer is None else layer, within, path)


def _dtype(change: LowRank) -> str:
    """Return the type of both factors; F32 where they have two."""
    types = {change.up.tensor.info.dtype, change.down.tensor.info.dtype}
    if len(types) > 1:
        return "F32"
    return types.pop()

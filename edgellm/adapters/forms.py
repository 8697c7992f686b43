"""How PEFT and mlx-lm store changes of matrices: tensors, and ``adapter_config.json``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from edgellm.adapters.stored import LAYER, AdapterForm, Change, inner_name, layer_of
from edgellm.checkpoint.safetensors_file import TensorData
from edgellm.converters.tensors.floats import Floats, stored
from edgellm.converters.tensors.source import Bytes
from edgellm.errors import FormatError, UnsupportedModelError

ALL_LAYERS = -1
"""mlx-lm's number for all layers."""

EXACT_WHOLE = 1 << 53
"""Up to this a float is any whole number."""

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFacts:
    """Facts that a config tells besides the changes.

    Attributes:
        base: the model that they belong to; None: nobody says.
        layers: how many that has; None: nobody knows, and mlx-lm looks for changes in all.
        dropout: of their training.
        rslora: whether PEFT is to divide by the root of a rank (Kalajdzievski 2023).
    """

    base: str | None = None
    layers: int | None = None
    dropout: float = 0.0
    rslora: bool = False


@dataclass(frozen=True, slots=True)
class AdapterContent:
    """The files of an adapter before they are written.

    Attributes:
        form: whose.
        tensors: whose bytes are made when their turn comes.
        config: what ``adapter_config.json`` says.
    """

    form: AdapterForm
    tensors: Sequence[TensorData]
    config: Mapping[str, Any]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)


def in_form(form: AdapterForm, changes: Mapping[str, Change], facts: ConfigFacts) -> AdapterContent:
    """Return how changes are stored.

    Args:
        form: whose.
        changes: by the paths of the matrices, one at least.
        facts: what the config says besides.

    Raises:
        UnsupportedModelError: the form has no place for a change.
    """
    tensors, config = {"peft": _as_peft, "mlx-lm": _as_mlx_lm}[form](changes, facts)
    return AdapterContent(form, tensors, config)


def _as_peft(
    changes: Mapping[str, Change], facts: ConfigFacts
) -> tuple[list[TensorData], dict[str, Any]]:
    tensors = []
    for path, change in changes.items():
        name = f"base_model.model.{path}"
        if change.is_embedding:
            parts = {"lora_embedding_A": change.up.T, "lora_embedding_B": change.down.T}
        else:
            parts = {"lora_A.weight": change.down, "lora_B.weight": change.up}
        if change.magnitude is not None:
            # without a suffix, as of a time when they were no modules
            parts["lora_magnitude_vector"] = change.magnitude
        for part, values in parts.items():
            tensors.append(_tensor(f"{name}.{part}", values, change.dtype))
    ranks = {path: change.rank for path, change in changes.items()}
    alphas = {
        path: alpha_of(change.scale, change.rank, rslora=facts.rslora)
        for path, change in changes.items()
    }
    rank, alpha = usual(ranks.values()), usual(alphas.values())
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": facts.base,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {path: own for path, own in ranks.items() if own != rank},
        "alpha_pattern": {path: own for path, own in alphas.items() if own != alpha},
        "lora_dropout": facts.dropout,
        "use_rslora": facts.rslora,
        "use_dora": is_dora(changes),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        **_targets(list(changes), facts.layers),
    }
    return tensors, config


def _as_mlx_lm(
    changes: Mapping[str, Change], facts: ConfigFacts
) -> tuple[list[TensorData], dict[str, Any]]:
    """Return tensors and config; mlx-lm has factors turned, and counts layers from the last.

    It has one rank and one scale for all: lower ranks are filled with zeros, and what scales
    differ by goes into a factor.
    """
    rank = max(change.rank for change in changes.values())
    scale = usual(change.scale for change in changes.values()) or 1.0
    tensors = []
    for path, change in changes.items():
        factor = change.scale / scale
        dtype = change.dtype if factor == 1 else "F32"
        first, second = change.down.T, change.up.T
        if change.is_embedding:
            first, second = change.up, change.down
        tensors += [
            _tensor(f"{path}.lora_a", first, dtype, room=(len(first), rank)),
            _tensor(f"{path}.lora_b", second, dtype, room=(rank, second.shape[1]), factor=factor),
        ]
        if change.magnitude is not None:
            tensors.append(_tensor(f"{path}.m", change.magnitude, dtype))
    config: dict[str, Any] = {
        "fine_tune_type": "dora" if is_dora(changes) else "lora",
        "num_layers": _last_layers(changes, facts.layers),
        "lora_parameters": {
            "rank": rank,
            "scale": scale,
            "dropout": facts.dropout,
            "keys": sorted({inner_name(path) for path in changes}),
        },
    }
    if facts.base is not None:
        config["model"] = facts.base
    return tensors, config


def is_dora(changes: Mapping[str, Change]) -> bool:
    """Return whether all changes are DoRA's. Raises UnsupportedModelError where some are."""
    some = [path for path, change in changes.items() if change.magnitude is not None]
    if some and len(some) < len(changes):
        raise UnsupportedModelError(
            f"{len(some)} of {len(changes)} changes are DoRA's, and one file holds one kind",
            hint="merge it into its base: edgellm convert BASE DEST --adapter FOLDER",
        )
    embeddings = [path for path in some if changes[path].is_embedding]
    if embeddings:
        raise UnsupportedModelError(
            f"DoRA's lengths of {embeddings[0]}, an embedding, are of columns in PEFT and of rows "
            "in mlx-lm",
            hint="merge it into its base: edgellm convert BASE DEST --adapter FOLDER",
        )
    return bool(some)


def usual(items: Iterable[Item]) -> Item:
    """Return what most items are."""
    return Counter(items).most_common(1)[0][0]


def alpha_of(scale: float, rank: int, *, rslora: bool = False) -> float:
    """Return the alpha that PEFT makes a scale of, as people write it: 32 and not 32.0.

    Args:
        scale: what a product is multiplied by.
        rank: of the product.
        rslora: whether alpha is divided by the rank's root.
    """
    divisor = math.sqrt(rank) if rslora else rank
    alpha = scale * divisor
    short = float(f"{alpha:.15g}")
    if short / divisor == scale:
        alpha = short
    return int(alpha) if alpha.is_integer() and abs(alpha) < EXACT_WHOLE else alpha


def _targets(paths: Sequence[str], count: int | None) -> dict[str, Any]:
    """Return how PEFT finds the matrices again: by names in all or some layers, or one by one."""
    inner: dict[str, set[int | None]] = {}
    for path in paths:
        inner.setdefault(inner_name(path), set()).add(layer_of(path))
    layers = next(iter(inner.values()))
    last_names = [name.rpartition(".")[2] for name in inner]
    found = LAYER.fullmatch(paths[0])
    if (
        None in layers
        or found is None
        or any(own != layers for own in inner.values())
        or len(set(last_names)) < len(last_names)
    ):
        return {"target_modules": list(paths), "layers_to_transform": None}
    numbers = sorted(layer for layer in layers if layer is not None)
    if len(numbers) == count:
        return {"target_modules": last_names, "layers_to_transform": None}
    return {
        "target_modules": last_names,
        "layers_to_transform": numbers,
        "layers_pattern": found["before"].rstrip(".").rpartition(".")[2] or None,
    }


def _last_layers(changes: Mapping[str, Change], layers: int | None) -> int:
    """Return mlx-lm's ``num_layers``: how many of the last ones hold changes."""
    numbers = [layer for layer in map(layer_of, changes) if layer is not None]
    if layers is None or not numbers:
        return ALL_LAYERS
    return layers - min(numbers)


def _tensor(
    name: str,
    values: Floats,
    dtype: str,
    *,
    room: tuple[int, ...] | None = None,
    factor: float = 1.0,
) -> TensorData:
    """Return a tensor of values that are multiplied, in a room that is filled up with zeros."""
    shape = room or values.shape
    return TensorData(name, dtype, shape, _bytes(name, values, dtype, shape, factor))


def _bytes(
    name: str, values: Floats, dtype: str, shape: tuple[int, ...], factor: float
) -> Iterator[Bytes]:
    if factor != 1:
        with np.errstate(over="ignore", invalid="ignore"):  # refused below
            values = values * np.float32(factor)
    if not np.isfinite(values).all():
        raise FormatError(
            f"{name} would hold a value that is infinite or not a number",
            hint="an adapter's values are damaged, or what they are multiplied by is too large",
        )
    if values.shape != shape:
        rooms = zip(shape, values.shape, strict=True)
        values = np.pad(values, [(0, room - own) for room, own in rooms])
    # exact: the values come from numbers of this type
    yield stored(np.ascontiguousarray(values), dtype)

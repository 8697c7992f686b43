"""How PEFT and mlx-lm store changes of matrices: tensors, and ``adapter_config.json``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from edgellm.adapters.stored import LAYER, Change, inner_name, layer_of
from edgellm.checkpoint.safetensors_file import TensorData
from edgellm.converters.tensors.floats import Floats, stored
from edgellm.errors import FormatError, UnsupportedModelError

ALL_LAYERS = -1
"""mlx-lm's number for all layers."""

Item = TypeVar("Item")


def as_peft(
    changes: Mapping[str, Change], base: str | None
) -> tuple[list[TensorData], dict[str, Any]]:
    """Return PEFT's tensors and config.

    Args:
        changes: by the paths of the matrices.
        base: the model that they belong to; None: nobody says.
    """
    tensors = []
    for path, change in changes.items():
        name = f"base_model.model.{path}"
        if change.is_embedding:
            pair = {"lora_embedding_A": change.up.T, "lora_embedding_B": change.down.T}
        else:
            pair = {"lora_A.weight": change.down, "lora_B.weight": change.up}
        tensors += [_tensor(f"{name}.{part}", values, change) for part, values in pair.items()]
        if change.magnitude is not None:
            tensors.append(_tensor(f"{name}.lora_magnitude_vector", change.magnitude, change))
    ranks = {path: change.rank for path, change in changes.items()}
    alphas = {path: _number(change.scale * change.rank) for path, change in changes.items()}
    rank, alpha = _usual(ranks.values()), _usual(alphas.values())
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {path: own for path, own in ranks.items() if own != rank},
        "alpha_pattern": {path: own for path, own in alphas.items() if own != alpha},
        "lora_dropout": 0.0,
        "use_rslora": False,
        "use_dora": is_dora(changes),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        **_targets(list(changes)),
    }
    return tensors, config


def as_mlx_lm(
    changes: Mapping[str, Change], base: str | None, layers: int | None
) -> tuple[list[TensorData], dict[str, Any]]:
    """Return mlx-lm's tensors and config.

    mlx-lm has one rank and one scale for all: lower ranks are filled with zeros, and what scales
    differ by goes into a factor.

    Args:
        changes: by the paths of the matrices.
        base: the model that they belong to; None: nobody says.
        layers: how many that has; None: nobody knows, and mlx-lm looks for changes in all.
    """
    rank = max(change.rank for change in changes.values())
    scale = _usual(change.scale for change in changes.values())
    if not scale:
        scale = 1.0
    tensors = []
    for path, change in changes.items():
        up, dtype = change.up, change.dtype
        if change.scale != scale:
            up, dtype = up * np.float32(change.scale / scale), "F32"
        up = np.pad(up, ((0, 0), (0, rank - change.rank)))
        down = np.pad(change.down, ((0, rank - change.rank), (0, 0)))
        pair = {"lora_a": down.T, "lora_b": up.T}
        if change.is_embedding:
            pair = {"lora_a": up, "lora_b": down}
        if change.magnitude is not None:
            pair["m"] = change.magnitude
        for part, values in pair.items():
            tensors.append(_tensor(f"{path}.{part}", values, change, dtype))
    config: dict[str, Any] = {
        "fine_tune_type": "dora" if is_dora(changes) else "lora",
        "num_layers": _last_layers(changes, layers),
        "lora_parameters": {
            "rank": rank,
            "scale": scale,
            "dropout": 0.0,
            "keys": sorted({inner_name(path) for path in changes}),
        },
    }
    if base is not None:
        config["model"] = base
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


def _targets(paths: Sequence[str]) -> dict[str, Any]:
    """Return how PEFT finds the matrices again: by names in layers, or one by one."""
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


def _tensor(name: str, values: Floats, change: Change, dtype: str | None = None) -> TensorData:
    dtype = dtype or change.dtype
    if not np.isfinite(values).all():
        raise FormatError(
            f"{name} would hold a value that is infinite or not a number",
            hint="an adapter's values are damaged, or what they are multiplied by is too large",
        )
    # exact: the values come from numbers of this type
    return TensorData(name, dtype, values.shape, stored(np.ascontiguousarray(values), dtype))


def _usual(items: Iterable[Item]) -> Item:
    return Counter(items).most_common(1)[0][0]


def _number(value: float) -> float:
    """Return a number as people write it: 32 and not 32.0."""
    nearest = round(value)
    if math.isclose(value, nearest, rel_tol=1e-15):
        return nearest
    return value

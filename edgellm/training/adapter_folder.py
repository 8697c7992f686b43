"""An adapter's folder, as PEFT or mlx-lm opens it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.folder import ADAPTER_CONFIG, LAYER_PREFIX
from edgellm.checkpoint.safetensors_file import TensorData, write_tensors
from edgellm.files.atomic import write_file
from edgellm.training.low_rank import Change, LoraSettings

Floats = npt.NDArray[np.float32]

AdapterFormat = Literal["peft", "mlx-lm"]

PEFT_FILE, MLX_LM_FILE = "adapter_model.safetensors", "adapters.safetensors"


_PEFT_A = re.compile(r"base_model\.model\.(.+)\.lora_A\.weight")


def write_adapter(
    folder: Path,
    changes: Sequence[Change],
    settings: LoraSettings,
    *,
    base: str,
    form: AdapterFormat = "peft",
) -> None:
    """Write an adapter, each file whole or not at all; what was there is replaced.

    Args:
        folder: that is there.
        changes: numbers of each layer.
        settings: what was learned.
        base: name of the model.
        form: whose.

    Raises:
        ConversionError: the disk refuses.
    """
    if form == "peft":
        tensors, config = _as_peft(changes, settings, base)
        file, other = folder / PEFT_FILE, folder / MLX_LM_FILE
    else:
        tensors, config = _as_mlx_lm(changes, settings)
        file, other = folder / MLX_LM_FILE, folder / PEFT_FILE
    text = json.dumps(config, indent=2) + "\n"
    write_file(folder / ADAPTER_CONFIG, [text.encode()])
    stored = [float_tensor(name, array) for name, array in tensors.items()]
    write_tensors(file, stored, metadata={"format": "pt"})
    other.unlink(missing_ok=True)  # of this run, before it went on in another form


def _as_peft(
    changes: Sequence[Change], settings: LoraSettings, base: str
) -> tuple[dict[str, mx.array], dict[str, Any]]:
    tensors = {
        f"base_model.model.{LAYER_PREFIX}{layer}.{name}{_peft_suffix(name)}": array
        for layer, change in enumerate(changes)
        for name, array in change.items()
    }
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "use_rslora": settings.rslora,
        "use_dora": settings.dora,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "target_modules": [target.rpartition(".")[2] for target in settings.targets],
        "layers_to_transform": None,
        "modules_to_save": None,
    }
    changed = [layer for layer, change in enumerate(changes) if change]
    if len(changed) < len(changes):
        config["layers_to_transform"] = changed
        config["layers_pattern"] = "layers"
    if settings.ranks:
        config["rank_pattern"] = _by_path(settings.ranks)
    if settings.alphas:
        config["alpha_pattern"] = _by_path(settings.alphas)
    if settings.left_out:  # then each matrix is named for itself
        config["target_modules"] = [found[1] for found in map(_PEFT_A.fullmatch, tensors) if found]
        config["layers_to_transform"] = config["layers_pattern"] = None
    return tensors, config


def _by_path(values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{LAYER_PREFIX}{name}": value for name, value in values.items()}


def _peft_suffix(name: str) -> str:
    # PEFT stores these without a suffix, as of a time when they were no modules
    return "" if name.endswith("lora_magnitude_vector") else ".weight"


def _as_mlx_lm(
    changes: Sequence[Change], settings: LoraSettings
) -> tuple[dict[str, mx.array], dict[str, Any]]:
    """Return tensors and config; mlx-lm has A and B turned, and counts layers from the last.

    It has one rank and one scale: lower ranks are filled with zeros, and B has what scales differ
    by.
    """
    parts = {"lora_A": "lora_a", "lora_B": "lora_b", "lora_magnitude_vector": "m"}
    rank = max([settings.rank, *settings.ranks.values()])
    tensors = {}
    for layer, change in enumerate(changes):
        for name, array in change.items():
            target, _, part = name.rpartition(".")
            stored = array
            missing = rank - settings.rank_of(layer, target)
            factor = settings.scale_of(layer, target) / (settings.scale or 1.0)
            if part == "lora_B" and factor != 1:
                stored = stored * factor
            if missing and part != "lora_magnitude_vector":
                filled = [(0, missing), (0, 0)] if part == "lora_A" else [(0, 0), (0, missing)]
                stored = mx.pad(stored, filled)
            tensors[f"{LAYER_PREFIX}{layer}.{target}.{parts[part]}"] = stored.T
    changed = [layer for layer, change in enumerate(changes) if change]
    config: dict[str, Any] = {
        "fine_tune_type": "dora" if settings.dora else "lora",
        "num_layers": len(changes) - changed[0],
        "lora_parameters": {
            "rank": rank,
            "scale": settings.scale,
            "dropout": settings.dropout,
            "keys": list(settings.targets),
        },
    }
    return tensors, config


def float_tensor(name: str, array: mx.array) -> TensorData:
    """Return an array as it is written in float32: in NumPy only once its turn comes."""
    return TensorData(name, "F32", tuple(array.shape), _floats(array))


def _floats(array: mx.array) -> Iterator[Floats]:
    yield np.ascontiguousarray(np.array(array.astype(mx.float32), copy=False))

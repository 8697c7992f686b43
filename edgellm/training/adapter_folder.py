"""An adapter's folder, as PEFT or mlx-lm opens it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
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
        f"base_model.model.{LAYER_PREFIX}{layer}.{name}.weight": array
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
    return tensors, config


def _as_mlx_lm(
    changes: Sequence[Change], settings: LoraSettings
) -> tuple[dict[str, mx.array], dict[str, Any]]:
    """Return tensors and config; mlx-lm has A and B turned, and counts layers from the last."""
    parts = {"lora_A": "lora_a", "lora_B": "lora_b"}
    tensors = {}
    for layer, change in enumerate(changes):
        for name, array in change.items():
            target, _, part = name.rpartition(".")
            tensors[f"{LAYER_PREFIX}{layer}.{target}.{parts[part]}"] = array.T
    config: dict[str, Any] = {
        "fine_tune_type": "lora",
        "num_layers": sum(bool(change) for change in changes),
        "lora_parameters": {
            "rank": settings.rank,
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

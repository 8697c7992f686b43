"""A model of a usual shape without weights, with which any two machines' arithmetic compare."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgellm.checkpoint.model_config import ModelConfig
from edgellm.distributed.supply.told_model import checkpoint_from
from edgellm.reading.blank_reader import BlankReader
from edgellm.runtime.step_time import measure_step
from edgellm.settings import LoadSettings

SAMPLE_NAME = "a layer and the output matrix of LLaMA 7B in 4 bits"

GROUP_SIZE, BITS = 64, 4

_CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 1,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "rms_norm_eps": 1e-5,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "quantization": {"group_size": GROUP_SIZE, "bits": BITS},
}


def sample_model() -> dict[str, Any]:
    """Return the model as machines are told of one; 180 MB when it is measured."""
    config = ModelConfig.from_dict(_CONFIG)
    shapes = {f"model.layers.0.{name}": shape for name, shape in config.tensor_shapes().items()}
    tensors: dict[str, list[Any]] = {}
    for name, shape in (shapes | dict(config.outer_shapes())).items():
        if len(shape) == 1:
            tensors[name] = ["F16", list(shape)]
            continue
        rows, columns = shape
        stem = name.removesuffix("weight")
        tensors[name] = ["U32", [rows, columns * BITS // 32]]
        tensors[f"{stem}scales"] = tensors[f"{stem}biases"] = ["F16", [rows, columns // GROUP_SIZE]]
    return {"config": json.dumps(_CONFIG), "tensors": tensors}


def measure_told(told: Mapping[str, Any], settings: LoadSettings) -> float:
    """Return bytes of weights per second through a token's arithmetic of a model as it is told.

    Raises FormatError, UnsupportedModelError where that is no model.
    """
    checkpoint = checkpoint_from(told, Path())
    return measure_step(checkpoint, settings, reader=BlankReader()).weights_per_second

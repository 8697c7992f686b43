"""Lit-LLaMA's config in LitGPT's words: built into its code, or told by its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgellm.converters.huggingface.torch_file import TorchTensor
from edgellm.converters.litgpt.tensor_names import LAYER
from edgellm.errors import FormatError

HEADS: Mapping[int, int] = {4096: 32, 5120: 40, 6656: 52, 8192: 64}
"""Heads of LLaMA 1 by its width."""

BUILT_IN: Mapping[str, Any] = {
    "norm_class_name": "RMSNorm",
    "mlp_class_name": "LLaMAMLP",
    "parallel_residual": False,
    "rotary_percentage": 1.0,
    "bias": False,
    "norm_eps": 1e-5,
    "rope_base": 10_000,
    "block_size": 2048,
}


def lit_llama_config(places: Mapping[str, TorchTensor], file: Path) -> dict[str, Any]:
    """Return a model's config from its tensors, without heads where it is of no published size.

    Raises FormatError.
    """
    width = _shape(places, "transformer.wte.weight", file)[1]
    found = [LAYER.fullmatch(name) for name in places]
    layers = {int(layer[1]) for layer in found if layer is not None}
    config = {
        **BUILT_IN,
        "n_embd": width,
        "n_layer": len(layers),
        "intermediate_size": _shape(places, "transformer.h.0.mlp.c_fc1.weight", file)[0],
    }
    if width in HEADS:
        config["n_head"] = HEADS[width]
    return config


def _shape(places: Mapping[str, TorchTensor], name: str, file: Path) -> tuple[int, ...]:
    tensor = places.get(name)
    if tensor is None or len(tensor.info.shape) != 2:
        raise FormatError(f"{file} has no matrix {name}", hint="name the whole model's file")
    return tensor.info.shape

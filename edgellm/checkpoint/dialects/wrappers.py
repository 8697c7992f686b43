"""Vision models, one part of which is a language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgellm.checkpoint.dialects.config_values import LIMITS
from edgellm.checkpoint.dialects.families import ARCHITECTURES, Config
from edgellm.errors import FormatError
from edgellm.files.strict_json import quoted

WRAPPERS: Mapping[str, str] = {
    "gemma3": "gemma3_text",
    "llava": "llama",
    "llava_next": "llama",
    "mistral3": "mistral",
}
"""Those of which ``text_config`` is the language model; and its family, if unsaid."""

OTHER_PARTS = ("vision_tower.", "multi_modal_projector.", "image_newline")
"""Their tensors that no text goes through, by the beginning of their names."""

_SEVEN_BILLION: Config = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}

UNSAID: Mapping[str, Config] = {
    "llama": _SEVEN_BILLION | {"intermediate_size": 11008},
    "mistral": _SEVEN_BILLION
    | {"intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131072},
}
"""What a ``text_config`` may leave out, as in published LLaVAs; by the family of the text part."""


def text_part(config: Mapping[str, Any]) -> Config:
    """Return the config of a wrapper's language model; any other config as it is."""
    kind = config.get("model_type")
    usual = WRAPPERS.get(kind) if isinstance(kind, str) else None
    if usual is None:
        return dict(config)
    text = config.get("text_config")
    if not isinstance(text, Mapping):
        raise FormatError(
            f"config.json: the text_config of {kind} is {quoted(text)}; it must be an object"
        )
    family = text.get("model_type") or usual
    if not isinstance(family, str):
        raise FormatError(
            f"config.json: the model_type of text_config is {quoted(family)}; it must be a text"
        )
    outer = {
        key: value
        for key, value in config.items()
        if value is not None and not key.endswith("_config") and key != "architectures"
    }
    if "quantization_config" in config:
        outer["quantization_config"] = config["quantization_config"]
    # sizes are the text part's own: LLaVA's old configs have another vocabulary outside
    sizes = {key for key in LIMITS if text.get(key) is not None}
    return (
        UNSAID.get(family, {})
        | {key: value for key, value in outer.items() if key not in sizes}
        | {key: value for key, value in text.items() if key not in outer or key in sizes}
        | {"model_type": family, "architectures": [ARCHITECTURES.get(family, "")]}
    )

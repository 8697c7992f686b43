"""PEFT's ``adapter_config.json``: what it may say of an adapter that is merged.

The list is of what is known, from PEFT's ``LoraConfig`` of all versions to 0.21. Whatever else a
config says is refused by name: PEFT gains ways to change a model faster than anyone can list them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgellm.checkpoint.folder import ADAPTER_CONFIG
from edgellm.converters.lora.module_patterns import first_matches
from edgellm.errors import FormatError, UnsupportedModelError
from edgellm.files.strict_json import quoted
from edgellm.settings import is_int

EMBEDDING = "model.embed_tokens"
FLOAT32_MAX = float(np.finfo(np.float32).max)

MERGED = frozenset(
    {"lora_alpha", "alpha_pattern", "use_rslora", "use_dora", "trainable_token_indices"}
)
"""Read by us when the matrices are changed."""

OF_TRAINING = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "exclude_modules",
        "fan_in_fan_out",  # of layers that are stored transposed, which linear ones are not
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_dropout",
        "lora_ga_config",
        "megatron_core",
        "merge_weights",
        "modules_to_save",
        "peft_version",
        "qalora_group_size",
        "r",  # ranks are those of the matrices, and so are those of ``rank_pattern``
        "rank_pattern",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
    }
)
"""How it was trained, and on what: the files hold the outcome. Configs of ways to begin have no
meaning without ``init_lora_weights``."""

ALLOWED: Mapping[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", "all", "lora_only", None),
    "init_lora_weights": (None, True, False, "gaussian", "eva", "orthogonal", "mica"),
}
"""Values that leave a product of two matrices to be added to a base that everybody has."""

CHANGED_BASES = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin that also change the base, which then no longer is the one that everybody has."""

TRAINABLE_TOKENS = "TRAINABLE_TOKENS"
OF_TOKENS = ("peft_type", "token_indices", "init_weights")
"""Keys of a config of this type that LoRA's has not, or has in other words."""

MERGE_BY_PEFT = "merge it with PEFT (merge_and_unload), save the model and convert that"


def as_lora(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the config of an adapter of single tokens' rows as LoRA's with such rows alone.

    PEFT has both, under two names; any other config is returned as it is.
    """
    if config.get("peft_type") != TRAINABLE_TOKENS:
        return config
    renamed = {key: value for key, value in config.items() if key not in OF_TOKENS}
    ids = config.get("token_indices")
    return renamed | {"trainable_token_indices": dict.fromkeys(("embed_tokens", "lm_head"), ids)}


def require_mergeable(config: Mapping[str, Any]) -> None:
    """Raise UnsupportedModelError where a config says anything that merging would not heed."""
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise UnsupportedModelError(
            f"the adapter is of type {quoted(kind)}",
            hint=f"edgellm merges LoRA and DoRA; what can be merged, PEFT merges: {MERGE_BY_PEFT}",
        )
    begun = config.get("init_lora_weights")
    if isinstance(begun, str) and begun.lower().startswith(CHANGED_BASES):
        raise UnsupportedModelError(
            f"the adapter began by {quoted(begun)}, which changes the base model too",
            hint="save it again with PEFT's path_initial_model_for_weight_conversion, "
            "which makes it plain LoRA",
        )
    for key, value in config.items():
        if key in ALLOWED:
            heeded = any(value is item or value == item for item in ALLOWED[key])
        else:
            # what is off has no effect, whatever it is
            heeded = key in MERGED or key in OF_TRAINING or not value
        if not heeded:
            raise UnsupportedModelError(
                f"{ADAPTER_CONFIG} says {quoted(key)}: {quoted(value)}, which edgellm cannot merge",
                hint=f"{MERGE_BY_PEFT}; or take the line out if it is only a note",
            )


def flag(config: Mapping[str, Any], key: str) -> bool:
    """Return a switch that is off where it is left out. Raises FormatError."""
    value = config.get(key)
    if value not in (None, True, False):
        raise FormatError(f"{ADAPTER_CONFIG}: {key} is {quoted(value)}", hint="true or false")
    return bool(value)


def scales_of(config: Mapping[str, Any], ranks: Mapping[str, int]) -> dict[str, float]:
    """Return lora_alpha / r of each module, or over the root of r.

    ``alpha_pattern`` has alphas of modules, whose names its keys match.

    Args:
        config: the config of the adapter.
        ranks: by the modules' paths.

    Raises:
        FormatError: an alpha is not a number, or a key no regular expression.
        UnsupportedModelError: a key takes too long.
    """
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, Mapping):
        raise FormatError(f"{ADAPTER_CONFIG}: alpha_pattern is {quoted(patterns)}")
    keys = first_matches(list(patterns), list(ranks))
    scales = {}
    for path, rank in ranks.items():
        alpha = config.get("lora_alpha", 8)
        if path in keys:
            alpha = patterns[keys[path]]
        if not is_finite(alpha):
            raise FormatError(f"{ADAPTER_CONFIG}: lora_alpha is {quoted(alpha)}")
        divisor = float(rank)
        if flag(config, "use_rslora"):
            divisor = math.sqrt(rank)
        scales[path] = float(alpha / divisor)
    return scales


def token_ids_of(config: Mapping[str, Any], path: str) -> list[int]:
    """Return the tokens whose rows of the matrix ``path`` an adapter brings, in their order.

    Raises:
        FormatError: the config does not say, or says no ids.
    """
    said = config.get("trainable_token_indices")
    if isinstance(said, Mapping):
        keys = [key for key in said if f".{path}".endswith(f".{key}")]
        said = next((said[key] for key in keys), None)
    elif path != EMBEDDING:  # a list is for the embedding
        said = None
    if not isinstance(said, list) or not all(is_int(item) and item >= 0 for item in said):
        raise FormatError(
            f"{ADAPTER_CONFIG} does not say which tokens' rows of {quoted(path)} the adapter "
            f"brings: trainable_token_indices is {quoted(said)}"
        )
    return said


def is_finite(value: object) -> bool:
    """Return whether a value is a number, and one that float32 can hold."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= FLOAT32_MAX

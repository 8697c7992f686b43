"""GGUF's metadata as Hugging Face's config, and the names of the tensors in both."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edgellm.checkpoint.model_config import RopeScaling
from edgellm.converters.tensors.floats import Floats
from edgellm.errors import FormatError, UnsupportedModelError
from edgellm.files.strict_json import quoted
from edgellm.models.rope import wavelengths

ARCHITECTURES: Mapping[str, str] = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
"""GGUF's ``general.architecture``, which is also ``model_type``, and Hugging Face's class."""

OUTER: Mapping[str, str] = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
INNER: Mapping[str, str] = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Hugging Face's names of a layer's parts, and GGUF's."""

OUTER_PATHS = {theirs: ours for ours, theirs in OUTER.items()}
INNER_PATHS = {theirs: ours for ours, theirs in INNER.items()}
LAYER_NAME = re.compile(r"blk\.(?P<index>0|[1-9][0-9]*)\.(?P<path>\w+)")

PERMUTED = ("self_attn.q_proj", "self_attn.k_proj")
"""Matrices, and biases, whose heads' rows GGUF's llama has in Meta's order (``rope_permutation``).

Its qwen2 and qwen3 have them in Hugging Face's.
"""

ROPE_FACTORS = "rope_freqs.weight"
"""The tensor with Llama 3's rope scaling: the factor of each wavelength."""

PUBLISHED_SCALING = (1.0, 4.0)
"""Low and high frequency factor of every Llama 3 that Meta published."""

PUBLISHED_CONTEXT = 8192
"""The context that they were trained on before it was stretched."""

UNSUPPORTED_KEYS = (
    "logit_scale",
    "residual_scale",
    "embedding_scale",
    "attention.scale",
    "attention.clamp_kqv",
)
"""Metadata that change the computation of a model in ways that edgellm does not run."""


def gguf_name(name: str) -> str:
    """Return GGUF's name of a tensor: ``blk.3.attn_q.weight`` of layer 3's ``q_proj``."""
    path, _, part = name.rpartition(".")
    if path in OUTER:
        return f"{OUTER[path]}.{part}"
    _, _, index, inner = path.split(".", 3)
    return f"blk.{index}.{INNER[inner]}.{part}"


def huggingface_name(name: str) -> str | None:
    """Return the inverse of ``gguf_name``; None: no model of these kinds has such a tensor."""
    path, _, part = name.rpartition(".")
    if path in OUTER_PATHS:
        return f"{OUTER_PATHS[path]}.{part}"
    layer = LAYER_NAME.fullmatch(path)
    if layer is None or layer["path"] not in INNER_PATHS:
        return None
    return f"model.layers.{layer['index']}.{INNER_PATHS[layer['path']]}.{part}"


def is_permuted(architecture: str, name: str) -> bool:
    """Return whether GGUF has the rows of a tensor (Hugging Face's name) in Meta's order."""
    path, _, _ = name.rpartition(".")
    return architecture == "llama" and path.endswith(PERMUTED)


def read_config(
    metadata: Mapping[str, Any], vocab_size: int, tensors: Mapping[str, Any]
) -> dict[str, Any]:
    """Return Hugging Face's config, save for ``rope_scaling``.

    Args:
        metadata: the file's.
        vocab_size: rows of the embedding.
        tensors: the model's tensors by Hugging Face's name; only the names are looked at.

    Raises:
        UnsupportedModelError: another kind of model.
        FormatError: a number is missing or no number.
    """
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UnsupportedModelError(
            f"the GGUF file's architecture {quoted(architecture)} is not supported",
            hint=f"edgellm runs: {known}",
        )
    numbers = _ModelNumbers(metadata, architecture)
    if numbers.integer("expert_count", 0):
        raise UnsupportedModelError(
            "the GGUF file holds a mixture of experts, which is not supported"
        )
    hidden = numbers.integer("embedding_length")
    heads = numbers.integer("attention.head_count")
    head_dim = numbers.integer("attention.key_length", hidden // max(1, heads))
    for key in ("attention.value_length", "rope.dimension_count"):
        if numbers.integer(key, head_dim) != head_dim:
            raise UnsupportedModelError(
                f"{architecture}.{key} is not {head_dim}, the size of a head: this is not supported"
            )
    for key in UNSUPPORTED_KEYS:
        if f"{architecture}.{key}" in metadata:
            raise UnsupportedModelError(
                f"the GGUF file sets {architecture}.{key}, which edgellm does not know"
            )
    return {
        "architectures": [ARCHITECTURES[architecture]],
        "model_type": architecture,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": numbers.integer("feed_forward_length"),
        "num_hidden_layers": numbers.integer("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": numbers.integer("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "vocab_size": vocab_size,
        "max_position_embeddings": numbers.integer("context_length", 2048),
        "rms_norm_eps": numbers.real("attention.layer_norm_rms_epsilon", 1e-5),
        "rope_theta": numbers.real("rope.freq_base", 10000.0),
        "tie_word_embeddings": "lm_head.weight" not in tensors,
        "attention_bias": "model.layers.0.self_attn.q_proj.bias" in tensors,
        "mlp_bias": "model.layers.0.mlp.gate_proj.bias" in tensors,
    }


def read_rope_scaling(
    metadata: Mapping[str, Any], config: Mapping[str, Any], factors: Floats | None
) -> dict[str, Any] | None:
    """Return the config's ``rope_scaling``.

    Args:
        metadata: the file's.
        config: as ``read_config`` gives it.
        factors: the tensor ``ROPE_FACTORS``, shape (head_dim / 2,); None: there is none.

    Raises:
        UnsupportedModelError: a scaling that edgellm does not know.
    """
    numbers = _ModelNumbers(metadata, str(config["model_type"]))
    factor = _linear_factor(numbers)
    if factors is None or np.all(factors == 1):
        if factor in (0.0, 1.0):
            return None
        return {"rope_type": "linear", "factor": factor}
    head_dim = int(config["head_dim"])
    theta = float(config["rope_theta"])
    plausible = theta > 0 and factor == 1.0 and factors.shape == (head_dim // 2,)
    if plausible and np.all(np.isfinite(factors)) and factors.min() > 0:
        context = numbers.integer("rope.scaling.original_context_length", 0)
        for scaling in _candidates(factors, head_dim, theta, context):
            if np.allclose(rope_factors(head_dim, theta, scaling), factors, rtol=1e-4, atol=0):
                return _as_config(scaling)
    raise UnsupportedModelError(f"the rotary scaling in {ROPE_FACTORS} is none that edgellm knows")


def rope_factors(head_dim: int, theta: float, scaling: RopeScaling) -> Floats:
    """Return the factor of each wavelength, as ``ROPE_FACTORS`` has it; shape (head_dim / 2,)."""
    plain = wavelengths(head_dim, theta, None).astype(np.float64)
    return (wavelengths(head_dim, theta, scaling) / plain).astype(np.float32)


def _linear_factor(numbers: _ModelNumbers) -> float:
    """Return the factor of all wavelengths, 1.0 where there is none; ``scale_linear`` is older."""
    older = "rope.scale_linear"
    if numbers.has("rope.scaling.type"):
        kind = numbers.raw("rope.scaling.type")
        if not isinstance(kind, str) or kind not in ("none", "linear"):
            raise UnsupportedModelError(
                f"rotary scaling {quoted(kind)} is not supported",
                hint="edgellm runs: linear, llama3",
            )
        if kind == "none":
            return 1.0
    elif not numbers.has(older):
        return 1.0
    return numbers.real("rope.scaling.factor", numbers.real(older, 1.0))


def _candidates(
    factors: Floats, head_dim: int, theta: float, context: int
) -> Iterator[RopeScaling]:
    """Yield scalings that may have made these factors: one for all, a published one, one solved.

    ``context`` is the original one that the file names, or 0.
    """
    factor = _shortest(float(factors.max()))
    if np.all(factors == factors[0]):
        yield RopeScaling(kind="linear", factor=factor)
        return
    known = [(PUBLISHED_CONTEXT, *PUBLISHED_SCALING)]
    if context > 0:
        known.append((context, *PUBLISHED_SCALING))
    known += _solved(factors, wavelengths(head_dim, theta, None), factor)
    for original_context, low, high in known:
        yield RopeScaling(
            kind="llama3",
            factor=factor,
            low_freq_factor=low,
            high_freq_factor=_shortest(high),
            original_max_position_embeddings=original_context,
        )


def _solved(factors: Floats, plain: Floats, factor: float) -> list[tuple[int, float, float]]:
    """Return original context, low and high frequency factor, solved for; or an empty list.

    Between its two borders Llama 3's blend is (turns - low) / (high - low), with turns = context /
    (2 pi wavelength): a straight line over 1 / (2 pi wavelength). Its slope context / (high - low)
    and its place -low / (high - low) leave one of the three free: low is taken as 1.
    """
    blended = (factors > 1) & (factors < factors.max())
    if np.count_nonzero(blended) < 2 or factor <= 1:
        return []
    # 1 / factors = blend + (1 - blend) / factor
    blend = (1 / factors[blended].astype(np.float64) - 1 / factor) / (1 - 1 / factor)
    per_turn = 1 / (2 * math.pi * plain[blended].astype(np.float64))
    slope, place = np.polyfit(per_turn, blend, 1)
    if not place < 0 < slope:
        return []
    high = 1 - 1 / place
    return [(round(slope * (high - 1)), 1.0, float(high))]


def _as_config(scaling: RopeScaling) -> dict[str, Any]:
    config: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind == "llama3":
        config |= {
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_position_embeddings,
        }
    return config


def _shortest(value: float) -> float:
    """Return a float32 in as few digits as name it: 1e-05 where float64 says 9.99999974e-06."""
    with np.errstate(over="ignore"):
        return float(str(np.float32(value)))


class _ModelNumbers:
    """The numbers that metadata give for one architecture."""

    def __init__(self, metadata: Mapping[str, Any], architecture: str) -> None:
        self._metadata = metadata
        self._architecture = architecture

    def has(self, key: str) -> bool:
        return f"{self._architecture}.{key}" in self._metadata

    def raw(self, key: str, default: Any = None) -> Any:
        return self._metadata.get(f"{self._architecture}.{key}", default)

    def integer(self, key: str, default: int | None = None) -> int:
        """Return a whole number; a list of one for each layer must be the same number all over."""
        value = self.raw(key, default)
        if isinstance(value, np.ndarray):
            if not value.size or np.any(value != value[0]):
                raise UnsupportedModelError(
                    f"{self._architecture}.{key} differs from layer to layer, "
                    "which is not supported"
                )
            value = value[0].item()
        if value is None:
            raise FormatError(f"the GGUF file's {self._architecture}.{key} is missing")
        if type(value) is not int:
            raise FormatError(f"the GGUF file's {self._architecture}.{key} is {quoted(value)}")
        return value

    def real(self, key: str, default: float) -> float:
        """Return a number that is stored as float32."""
        value = self.raw(key, default)
        if isinstance(value, int | float) and not isinstance(value, bool):
            number = _shortest(float(value))
            if math.isfinite(number):
                return number
        raise FormatError(f"the GGUF file's {self._architecture}.{key} is {quoted(value)}")

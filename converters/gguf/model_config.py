"""GGUF's metadata as Hugging Face's config, and the names of the tensors in both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.model_config import RopeScaling
from edgellm.errors import FormatError, UnsupportedModelError
from edgellm.files.strict_json import quoted
from edgellm.models.rope import wavelengths

ARCHITECTURES: Mapping[str, str] = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
"""What GGUF calls each kind of model, and Hugging Face its class; ``model_type`` is called as in GGUF."""

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

ROPE_FACTORS = "rope_freqs.weight"
"""The tensor with Llama 3's stretching: what each wavelength is multiplied by."""

PERMUTED = ("self_attn.q_proj", "self_attn.k_proj")
"""Rows that GGUF's llama has in another order; see ``rotary_rows``."""

KNOWN_STRETCHES = ((8192, 1.0, 4.0),)
"""Original context, low and high frequency factor of the published models."""


def gguf_name(name: str) -> str:
    """What GGUF calls a tensor: ``blk.3.attn_q.weight`` for ``model.layers.3.self_attn.q_proj.weight``."""
    path, _, part = name.rpartition(".")
    if path in OUTER:
        return f"{OUTER[path]}.{part}"
    _, _, index, inner = path.split(".", 3)
    return f"blk.{index}.{INNER[inner]}.{part}"


def huggingface_name(name: str) -> str | None:
    """The inverse of ``gguf_name``; None for a tensor that no dense model of these kinds has."""
    path, _, part = name.rpartition(".")
    if path in _OUTER:
        return f"{_OUTER[path]}.{part}"
    block, _, rest = path.partition(".")
    index, _, inner = rest.partition(".")
    if (
        block != "blk"
        or inner not in _INNER
        or not index.isdecimal()
        or not index.isascii()
        or str(int(index)) != index
    ):
        return None
    return f"model.layers.{index}.{_INNER[inner]}.{part}"


_OUTER = {theirs: ours for ours, theirs in OUTER.items()}
_INNER = {theirs: ours for ours, theirs in INNER.items()}


def rotary_rows(rows: int, heads: int) -> npt.NDArray[np.int64]:
    """For each row of a query or key matrix in Hugging Face's order, where GGUF's llama has it; shape (rows,).

    Hugging Face turns feature i of a head together with feature i + D/2, llama.cpp's llama 2i with
    2i + 1.
    """
    return np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).reshape(-1)


def read_config(
    metadata: Mapping[str, Any], vocabulary: int, tensors: Mapping[str, Any]
) -> dict[str, Any]:
    """Hugging Face's config, save for the rotary scaling of ``read_stretch``.

    Args:
        metadata: the file's.
        vocabulary: rows of the embedding.
        tensors: the model's tensors by Hugging Face's name; only the names are looked at.

    Raises:
        UnsupportedModelError: another kind of model.
        FormatError: a number is missing or no number.
    """
    kind = metadata.get("general.architecture")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UnsupportedModelError(
            f"the GGUF file's architecture {quoted(kind)} is not supported",
            hint=f"edgellm runs: {known}",
        )
    said = _Said(metadata, kind)
    if said.number("expert_count", 0):
        raise UnsupportedModelError(
            "the GGUF file holds a mixture of experts, which is not supported"
        )
    hidden, heads = said.number("embedding_length"), said.number("attention.head_count")
    head_dim = said.number("attention.key_length", hidden // max(1, heads))
    for key in ("attention.value_length", "rope.dimension_count"):
        if said.number(key, head_dim) != head_dim:
            raise UnsupportedModelError(
                f"{kind}.{key} is not {head_dim}, the size of a head: this is not supported"
            )
    for key in (
        "logit_scale",
        "residual_scale",
        "embedding_scale",
        "attention.scale",
        "attention.clamp_kqv",
    ):
        if f"{kind}.{key}" in metadata:
            raise UnsupportedModelError(
                f"the GGUF file sets {kind}.{key}, which edgellm does not know"
            )
    biases = {name.removeprefix("model.layers.0.") for name in tensors if name.endswith(".bias")}
    return {
        "architectures": [ARCHITECTURES[kind]],
        "model_type": kind,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": said.number("feed_forward_length"),
        "num_hidden_layers": said.number("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": said.number("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "vocab_size": vocabulary,
        "max_position_embeddings": said.number("context_length", 2048),
        "rms_norm_eps": _short(said.real("attention.layer_norm_rms_epsilon", 1e-5)),
        "rope_theta": _short(said.real("rope.freq_base", 10000.0)),
        "tie_word_embeddings": "lm_head.weight" not in tensors,
        "attention_bias": "self_attn.q_proj.bias" in biases,
        "mlp_bias": "mlp.gate_proj.bias" in biases,
    }


def read_stretch(
    metadata: Mapping[str, Any], config: Mapping[str, Any], factors: npt.NDArray[np.float32] | None
) -> dict[str, Any] | None:
    """The config's ``rope_scaling``.

    Args:
        metadata: the file's.
        config: as ``read_config`` gives it.
        factors: what the file multiplies each wavelength by, shape (head_dim / 2,); None: it says
            nothing.

    Raises:
        UnsupportedModelError: a scaling that edgellm does not know.
    """
    said = _Said(metadata, str(config["model_type"]))
    kind = metadata.get(
        f"{said.kind}.rope.scaling.type",
        "linear" if f"{said.kind}.rope.scale_linear" in metadata else "none",
    )
    if kind not in ("none", "linear"):
        raise UnsupportedModelError(
            f"rotary scaling {quoted(kind)} is not supported", hint="edgellm runs: linear, llama3"
        )
    factor = (
        _short(said.real("rope.scaling.factor", said.real("rope.scale_linear", 1.0)))
        if kind == "linear"
        else 1.0
    )
    if factors is None or np.all(factors == 1):
        return {"rope_type": "linear", "factor": factor} if factor not in (0.0, 1.0) else None
    refusal = UnsupportedModelError(
        f"the rotary scaling in {ROPE_FACTORS} is none that edgellm knows"
    )
    if (
        config["rope_theta"] <= 0
        or factor != 1.0
        or factors.shape != (config["head_dim"] // 2,)
        or not np.all(np.isfinite(factors))
        or factors.min() <= 0
    ):
        raise refusal
    for stretch in _stretches(
        factors, config, said.number("rope.scaling.original_context_length", 0)
    ):
        if np.allclose(_factors(stretch, config), factors, rtol=1e-4, atol=0):
            return {"rope_type": stretch.kind, "factor": stretch.factor} | (
                {
                    "low_freq_factor": stretch.low_freq_factor,
                    "high_freq_factor": stretch.high_freq_factor,
                    "original_max_position_embeddings": stretch.original_max_position_embeddings,
                }
                if stretch.kind == "llama3"
                else {}
            )
    raise refusal


def stretch_factors(head_dim: int, theta: float, scaling: RopeScaling) -> npt.NDArray[np.float32]:
    """What each wavelength is multiplied by, as ``ROPE_FACTORS`` has it; shape (head_dim / 2,)."""
    plain = wavelengths(head_dim, theta, None).astype(np.float64)
    return (wavelengths(head_dim, theta, scaling) / plain).astype(np.float32)


def _stretches(
    factors: npt.NDArray[np.float32], config: Mapping[str, Any], original: int
) -> list[RopeScaling]:
    """Settings that may have made these factors: one factor for all, a published model's, or one that is solved for.

    Between its two borders Llama 3's blend is a straight line over 1 / wavelength; its slope and
    its place give the ratio of context, low and high factor, of which one can be chosen.
    """
    factor = _short(float(factors.max()))
    if np.all(factors == factors[0]):
        return [RopeScaling(kind="linear", factor=factor)]
    known = [*KNOWN_STRETCHES, *([(original, 1.0, 4.0)] if original > 0 else [])]
    plain = wavelengths(int(config["head_dim"]), float(config["rope_theta"]), None).astype(
        np.float64
    )
    inside = (factors > 1) & (factors < factors.max())
    if np.count_nonzero(inside) > 1 and factor > 1:
        blend = (1 / factors[inside].astype(np.float64) - 1 / factor) / (1 - 1 / factor)
        slope, place = np.polyfit(1 / (2 * math.pi * plain[inside]), blend, 1)
        if place < 0 < slope:
            high = 1 - 1 / place
            known.append((round(slope * (high - 1)), 1.0, float(high)))
    return [
        RopeScaling(
            kind="llama3",
            factor=factor,
            low_freq_factor=low,
            high_freq_factor=_short(high),
            original_max_position_embeddings=context,
        )
        for context, low, high in known
    ]


def _factors(stretch: RopeScaling, config: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    return stretch_factors(int(config["head_dim"]), float(config["rope_theta"]), stretch)


def _short(value: float) -> float:
    """The float32 in as few digits as name it: 1e-05 where float64 would say 9.99999974e-06."""
    return float(str(np.float32(value)))


class _Said:
    """The numbers that metadata give for one architecture."""

    def __init__(self, metadata: Mapping[str, Any], kind: str) -> None:
        self.kind = kind
        self._metadata = metadata

    def number(self, key: str, default: int | None = None) -> int:
        """A whole number; a list of one for each layer must hold the same number all over."""
        value = self._metadata.get(f"{self.kind}.{key}", default)
        if isinstance(value, np.ndarray) and value.size and np.all(value == value[0]):
            value = value[0].item()
        if isinstance(value, np.ndarray):
            raise UnsupportedModelError(
                f"{self.kind}.{key} differs from layer to layer, which is not supported"
            )
        if type(value) is not int:
            raise FormatError(
                f"the GGUF file's {self.kind}.{key} is {'missing' if value is None else quoted(value)}"
            )
        return value

    def real(self, key: str, default: float) -> float:
        value = self._metadata.get(f"{self.kind}.{key}", default)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise FormatError(f"the GGUF file's {self.kind}.{key} is {quoted(value)}")
        return float(value)

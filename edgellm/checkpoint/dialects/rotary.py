"""Rotary settings of a config, in the old form ``rope_scaling`` or as ``rope_parameters``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from edgellm.checkpoint.dialects.config_values import read_flag, read_real
from edgellm.errors import FormatError, UnsupportedModelError
from edgellm.settings import MAX_CONTEXT, is_int

SLIDING, FULL = "sliding_attention", "full_attention"
"""Kinds of layers, as ``layer_types`` calls them."""

ROPE_KEYS = ("rope_parameters", "rope_scaling")
ROPE_TYPES = ("default", "linear", "llama3", "yarn", "longrope", "dynamic")


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """How rotary frequencies are stretched.

    Attributes:
        kind: the ``rope_type``. ``dynamic`` stretches nothing within ``max_position_embeddings``,
            and no text is longer here.
        factor: how far.
        low_freq_factor: of llama3.
        high_freq_factor: of llama3.
        original_max_position_embeddings: the context that the model was trained on at first, of
            llama3, yarn and longrope.
        attention_factor: what queries and keys are multiplied by, of yarn and longrope.
        beta_fast: turns over the first context from which on a pair stays as it is, of yarn.
        beta_slow: turns up to which a pair is stretched in full, of yarn.
        truncate: whether the pairs that lie between begin and end at whole numbers, of yarn.
        short_factors: how far each pair is stretched in texts up to the first context, of longrope.
        long_factors: how far in longer ones.
        is_long: whether texts may be longer, of longrope.
    """

    kind: Literal["linear", "llama3", "yarn", "longrope", "dynamic"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192
    attention_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()
    is_long: bool = False

    def for_context(self, context: int) -> RopeScaling:
        """Return the scaling for texts of up to this many tokens."""
        if self.kind != "longrope":
            return self
        return replace(self, is_long=context > self.original_max_position_embeddings)

    def as_config(self) -> dict[str, Any]:
        """Return the block of a config, in the old form, which all readers know."""
        written: dict[str, Any] = {"rope_type": self.kind, "factor": self.factor}
        if self.kind in ("llama3", "yarn", "longrope"):
            written["original_max_position_embeddings"] = self.original_max_position_embeddings
        if self.kind == "llama3":
            written |= {
                "low_freq_factor": self.low_freq_factor,
                "high_freq_factor": self.high_freq_factor,
            }
        if self.kind == "longrope":
            written |= {
                "type": self.kind,  # mlx-lm's phi3 knows no other word
                "attention_factor": self.attention_factor,
                "short_factor": list(self.short_factors),
                "long_factor": list(self.long_factors),
            }
        if self.kind == "yarn":
            written |= {
                "attention_factor": self.attention_factor,
                "beta_fast": self.beta_fast,
                "beta_slow": self.beta_slow,
                "truncate": self.truncate,
            }
            if self.attention_factor != yarn_magnitude(self.factor) and self.factor > 1:
                # mlx-lm reads no attention_factor, but this
                stretch = (self.attention_factor - 1) / (0.1 * math.log(self.factor))
                written |= {"mscale": stretch, "mscale_all_dim": 0}
        return written


def read_rotary_dim(raw: Mapping[str, Any], head_dim: int) -> int:
    """Return how many features of a head are rotated, its first ones. Raises FormatError."""
    share = rotated_share(raw)
    rotary_dim = int(head_dim * share)
    if rotary_dim < 2 or rotary_dim % 2:
        raise FormatError(
            f"config.json: {share} of a head of {head_dim} are rotated, which must be "
            "an even number of features"
        )
    return rotary_dim


def rotated_share(raw: Mapping[str, Any]) -> float:
    """Return which part of a head is rotated; the block goes before what stands beside it."""
    name = "partial_rotary_factor"
    share = rotary_settings(raw).get(name, raw.get(name))
    return read_real({name: share}, name, 1.0, low=0.0, high=1.0)


def read_rotary(
    raw: Mapping[str, Any], context: int, rotary_dim: int, layer_type: str = FULL
) -> tuple[float, RopeScaling | None]:
    """Return the base of rotary frequencies, and how they are scaled.

    Args:
        raw: the config.
        context: its ``max_position_embeddings``.
        rotary_dim: features of a head that are rotated.
        layer_type: of the layers that are asked for, where each kind may have settings of its own.

    Raises:
        UnsupportedModelError: another type of scaling.
        FormatError: a number is missing, of the wrong kind, or impossible.
    """
    settings = rotary_settings(raw, layer_type)
    theta = settings.get("rope_theta", raw.get("rope_theta"))
    theta = read_real({"rope_theta": theta}, "rope_theta", 10000.0, low=0.0, high=1e12)
    kind = settings.get("rope_type", settings.get("type", "default"))
    if kind == "su":  # as Phi-3 first called it
        kind = "longrope"
    if kind not in ROPE_TYPES:
        raise UnsupportedModelError(
            f"rope_scaling of type {str(kind)[:40]!r} is not supported",
            hint=f"edgellm runs: {', '.join(ROPE_TYPES)}",
        )
    if kind == "default":
        return theta, None
    if kind == "yarn":
        return theta, _yarn(raw, settings, theta, context)
    if kind == "longrope":
        return theta, _longrope(raw, settings, context, rotary_dim // 2)
    factor = read_real(settings, "factor", math.nan, low=0.0, high=1e6)
    if kind == "llama3":
        return theta, _llama3(settings, factor)
    return theta, RopeScaling(kind=kind, factor=factor)


def read_local_rotary(
    raw: Mapping[str, Any], context: int, rotary_dim: int, theta_key: str
) -> tuple[float, RopeScaling | None]:
    """Return what ``read_rotary`` does, of layers with a window whose rotation is their own.

    The old form of a config has ``theta_key`` for their base, and never scales their frequencies.
    """
    if any(isinstance(raw.get(key), Mapping) and SLIDING in raw[key] for key in ROPE_KEYS):
        local = {**raw, "rope_theta": raw.get(theta_key)}
        return read_rotary(local, context, rotary_dim, SLIDING)
    theta, _ = read_rotary(raw, context, rotary_dim)
    if theta_key == "rope_theta":
        return theta, None
    return read_real(raw, theta_key, 10000.0, low=0.0, high=1e12), None


def rotary_settings(raw: Mapping[str, Any], layer_type: str = FULL) -> dict[str, Any]:
    """Return a config's rotary settings: old form, new form, or both merged.

    The new form may have settings of each kind of layer.
    """
    settings: dict[str, Any] = {}
    # transformers believes the second where both are there
    for key in ROPE_KEYS:
        value = raw.get(key)
        if isinstance(value, Mapping) and {SLIDING, FULL} & value.keys():
            value = value.get(layer_type)
        elif layer_type == SLIDING:
            continue  # which has its own, or none
        if value is None:
            continue
        if not isinstance(value, Mapping):
            raise FormatError(f"config.json: {key} is {str(value)[:40]}; it must be an object")
        settings |= {name: item for name, item in value.items() if item is not None}
    return settings


def yarn_magnitude(factor: float, scale: float = 1.0) -> float:
    """Return what yarn multiplies queries and keys by, where a config says nothing else."""
    if factor <= 1:
        return 1.0
    return 0.1 * scale * math.log(factor) + 1.0


def _llama3(settings: Mapping[str, Any], factor: float) -> RopeScaling:
    low = read_real(settings, "low_freq_factor", math.nan, low=0.0, high=1e6)
    high = read_real(settings, "high_freq_factor", math.nan, low=0.0, high=1e6)
    if high <= low:
        raise FormatError(
            f"config.json: high_freq_factor {high} must be above low_freq_factor {low}"
        )
    return RopeScaling(
        kind="llama3",
        factor=factor,
        low_freq_factor=low,
        high_freq_factor=high,
        original_max_position_embeddings=_original_context(settings, None),
    )


def _yarn(
    raw: Mapping[str, Any], settings: Mapping[str, Any], theta: float, context: int
) -> RopeScaling:
    """Return yarn's scaling (Peng et al. 2023, arXiv:2309.00071), as transformers 5.24 does."""
    if theta <= 1.0:
        raise FormatError(f"config.json: rope_theta is {theta}; yarn needs one above 1")
    original = _first_context(raw, settings, context)
    factor = read_real(settings, "factor", context / original, low=0.0, high=1e6)
    attention_factor = yarn_magnitude(factor)
    if settings.get("mscale") and settings.get("mscale_all_dim"):
        one, all_dims = (
            read_real(settings, name, 1.0, low=0.0, high=1e6)
            for name in ("mscale", "mscale_all_dim")
        )
        attention_factor = yarn_magnitude(factor, one) / yarn_magnitude(factor, all_dims)
    betas = {name: settings.get(name) or None for name in ("beta_fast", "beta_slow")}
    return RopeScaling(
        kind="yarn",
        factor=factor,
        original_max_position_embeddings=original,
        attention_factor=read_real(
            settings, "attention_factor", attention_factor, low=0.0, high=1e3
        ),
        beta_fast=read_real(betas, "beta_fast", 32.0, low=0.0, high=1e6),
        beta_slow=read_real(betas, "beta_slow", 1.0, low=0.0, high=1e6),
        truncate=read_flag(settings, "truncate", default=True),
    )


def _longrope(
    raw: Mapping[str, Any], settings: Mapping[str, Any], context: int, pairs: int
) -> RopeScaling:
    """Return longrope's scaling (Ding et al. 2024, arXiv:2402.13753), as transformers 5.24 does."""
    original = _first_context(raw, settings, context)
    factor = read_real(settings, "factor", context / original, low=0.0, high=1e6)
    attention_factor = 1.0
    if factor > 1.0 and original > 1:
        attention_factor = math.sqrt(1 + math.log(factor) / math.log(original))
    return RopeScaling(
        kind="longrope",
        factor=factor,
        original_max_position_embeddings=original,
        attention_factor=read_real(
            settings, "attention_factor", attention_factor, low=0.0, high=1e3
        ),
        short_factors=_pair_factors(settings, "short_factor", pairs),
        long_factors=_pair_factors(settings, "long_factor", pairs),
    )


def _pair_factors(settings: Mapping[str, Any], name: str, pairs: int) -> tuple[float, ...]:
    factors = settings.get(name)
    if not isinstance(factors, list) or len(factors) != pairs:
        raise FormatError(
            f"config.json: {name} is {str(factors)[:40]}; it must be a list of {pairs} numbers"
        )
    return tuple(read_real({name: one}, name, math.nan, low=0.0, high=1e6) for one in factors)


def _first_context(raw: Mapping[str, Any], settings: Mapping[str, Any], context: int) -> int:
    """Return the context of the first training; beside the block it comes before in the block."""
    if raw.get("original_max_position_embeddings") is not None:
        return _original_context(raw, context)
    return _original_context(settings, context)


def _original_context(settings: Mapping[str, Any], default: int | None) -> int:
    original = settings.get("original_max_position_embeddings")
    if original is None:
        original = default
    if not is_int(original) or not 1 <= original <= MAX_CONTEXT:
        raise FormatError(f"config.json: original_max_position_embeddings is {str(original)[:40]}")
    return original

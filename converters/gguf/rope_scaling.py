"""The rotary scaling in GGUF's metadata, or in its tensor of factors, as Hugging Face's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edgellm.checkpoint.dialects.rotary import RopeScaling, yarn_magnitude
from edgellm.converters.gguf.metadata import ModelNumbers, shortest_float
from edgellm.converters.tensors.floats import Floats
from edgellm.errors import UnsupportedModelError
from edgellm.files.strict_json import quoted
from edgellm.models.rope import wavelengths

ROPE_FACTORS = "rope_freqs.weight"
"""The tensor with Llama 3's rope scaling: the factor of each wavelength."""

LONG_FACTORS, SHORT_FACTORS = "rope_factors_long.weight", "rope_factors_short.weight"
"""The tensors with longrope's factors, for long texts and for those up to the first context."""

FACTOR_TENSORS = (ROPE_FACTORS, LONG_FACTORS, SHORT_FACTORS)

YARN_UNKNOWN = tuple(
    f"rope.scaling.{name}"
    for name in ("yarn_ext_factor", "yarn_attn_factor", "yarn_log_multiplier", "alpha")
)
"""Numbers of yarn that no model of ours has in GGUF."""

PUBLISHED_SCALING = (1.0, 4.0)
"""Low and high frequency factor of every Llama 3 that Meta published."""

PUBLISHED_CONTEXT = 8192
"""The context that they were trained on before it was stretched."""


def read_rope_scaling(
    numbers: ModelNumbers, config: Mapping[str, Any], tensors: Mapping[str, Floats]
) -> dict[str, Any] | None:
    """Return the config's ``rope_scaling``.

    Args:
        numbers: the file's.
        config: as ``read_config`` gives it.
        tensors: those of ``FACTOR_TENSORS`` that there are, shape (rotary_dim / 2,) each.

    Raises:
        UnsupportedModelError: a scaling that edgellm does not know.
    """
    factors = tensors.get(ROPE_FACTORS)
    kind = numbers.metadata.text(numbers.key("rope.scaling.type"))
    if LONG_FACTORS in tensors and SHORT_FACTORS in tensors and kind in (None, "longrope"):
        return _longrope(numbers, config, tensors)
    if kind == "yarn":
        return _yarn(numbers, config, factors)
    factor = _linear_factor(numbers)
    if factors is None or np.all(factors == 1):
        if factor == 1.0:
            return None
        return {"rope_type": "linear", "factor": factor}
    head_dim = int(config["head_dim"])
    theta = float(config["rope_theta"])
    plausible = theta > 0 and factor == 1.0 and factors.shape == (head_dim // 2,)
    if plausible and np.all(np.isfinite(factors)) and factors.min() > 0:
        context = numbers.integer("rope.scaling.original_context_length", 0)
        for scaling in _candidates(factors, head_dim, theta, context):
            if np.allclose(rope_factors(head_dim, theta, scaling), factors, rtol=1e-4, atol=0):
                return scaling.as_config()
    raise UnsupportedModelError(
        f"the rotary scaling in {ROPE_FACTORS} is not one that edgellm knows",
        hint="convert the model that it was made from",
    )


def _yarn(
    numbers: ModelNumbers, config: Mapping[str, Any], factors: Floats | None
) -> dict[str, Any]:
    """Return yarn's numbers, whose defaults are llama.cpp's."""
    for key in YARN_UNKNOWN:
        if numbers.key(key) in numbers.metadata:
            raise UnsupportedModelError(
                f"the GGUF file sets {numbers.key(key)}, which edgellm does not know",
                hint="convert the model that it was made from",
            )
    if factors is not None and not np.all(factors == 1):
        raise UnsupportedModelError(
            f"the GGUF file has yarn and the tensor {ROPE_FACTORS}, which no model has together",
            hint="convert the model that it was made from",
        )
    factor = numbers.real("rope.scaling.factor", 1.0)
    context = int(config["max_position_embeddings"])
    # beside yarn's own, which llama.cpp multiplies by it
    attention = numbers.real("rope.scaling.attn_factor", 1.0)
    return {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": numbers.integer(
            "rope.scaling.original_context_length", context
        ),
        "attention_factor": attention * yarn_magnitude(factor),
        "beta_fast": numbers.real("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": numbers.real("rope.scaling.yarn_beta_slow", 1.0),
    }


def _longrope(
    numbers: ModelNumbers, config: Mapping[str, Any], tensors: Mapping[str, Floats]
) -> dict[str, Any]:
    """Return longrope's numbers, whose defaults are llama.cpp's."""
    return {
        "rope_type": "longrope",
        "original_max_position_embeddings": numbers.integer(
            "rope.scaling.original_context_length", int(config["max_position_embeddings"])
        ),
        "attention_factor": numbers.real("rope.scaling.attn_factor", 1.0),
        "short_factor": [shortest_float(float(one)) for one in tensors[SHORT_FACTORS]],
        "long_factor": [shortest_float(float(one)) for one in tensors[LONG_FACTORS]],
    }


def rope_factors(head_dim: int, theta: float, scaling: RopeScaling) -> Floats:
    """Return the factor of each wavelength, as ``ROPE_FACTORS`` has it; shape (head_dim / 2,)."""
    plain = wavelengths(head_dim, theta, None).astype(np.float64)
    return (wavelengths(head_dim, theta, scaling) / plain).astype(np.float32)


def _linear_factor(numbers: ModelNumbers) -> float:
    """Return the factor of all wavelengths, 1.0 where there is none.

    As in llama.cpp a factor without a type is a linear one, and 0 is none; ``scale_linear`` is the
    factor's older name.
    """
    kind = numbers.metadata.text(numbers.key("rope.scaling.type"))
    if kind not in (None, "none", "linear"):
        raise UnsupportedModelError(
            f"rotary scaling {quoted(kind)} is not supported",
            hint="edgellm runs: linear, llama3, yarn, longrope",
        )
    if kind == "none":
        return 1.0
    older = numbers.real("rope.scale_linear", 1.0)
    return numbers.real("rope.scaling.factor", older) or 1.0


def _candidates(
    factors: Floats, head_dim: int, theta: float, context: int
) -> Iterator[RopeScaling]:
    """Yield scalings that may have made these factors: one for all, a published one, one solved.

    ``context`` is the original one that the file names, or 0.
    """
    factor = shortest_float(float(factors.max()))
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
            high_freq_factor=shortest_float(high),
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

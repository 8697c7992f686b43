"""Rotary position embeddings: the wavelengths of feature pairs, with LLaMA's scalings."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.dialects.rotary import RopeScaling


def wavelengths(
    rotary_dim: int, theta: float, scaling: RopeScaling | None
) -> npt.NDArray[np.float32]:
    """Return positions per radian of each pair of features, shape (rotary_dim / 2,).

    A feature pair at position ``p`` turns by ``p / wavelength`` (Su et al. 2021, arXiv:2104.09864).
    ``linear`` stretches every pair (Chen et al. 2023, arXiv:2306.15595); ``llama3`` (Llama 3.1's
    configuration) and ``yarn`` (Peng et al. 2023, arXiv:2309.00071) stretch slow pairs, leave fast
    ones and blend between; ``longrope`` (Ding et al. 2024, arXiv:2402.13753) has a factor for each;
    ``dynamic`` changes nothing within the model's own context.
    """
    # theta^(2i/R) of pair i
    lengths = theta ** (np.arange(0, rotary_dim, 2, dtype=np.float64) / rotary_dim)
    if scaling is None or scaling.kind == "dynamic":
        return lengths.astype(np.float32)
    if scaling.kind == "longrope":
        factors = scaling.short_factors
        if scaling.is_long:
            factors = scaling.long_factors
        return np.multiply(lengths, factors, dtype=np.float64).astype(np.float32)
    if scaling.kind == "linear":
        return (lengths * scaling.factor).astype(np.float32)
    # 0 for slow pairs, which are stretched; 1 for fast ones, which stay
    if scaling.kind == "yarn":
        unscaled = 1.0 - _yarn_ramp(rotary_dim, theta, scaling)
    else:
        # turns of each pair over the context that the model was trained on at first
        turns = scaling.original_max_position_embeddings / (2 * math.pi * lengths)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        unscaled = np.clip((turns - low) / (high - low), 0.0, 1.0)
    # frequencies, the inverses of wavelengths, are what is blended
    frequencies = unscaled / lengths + (1.0 - unscaled) / (scaling.factor * lengths)
    return (1.0 / frequencies).astype(np.float32)


def _yarn_ramp(rotary_dim: int, theta: float, scaling: RopeScaling) -> npt.NDArray[np.float64]:
    """Return how far each pair is stretched, 0 to 1: a straight line over their numbers."""

    def pair_of(turns: float) -> float:
        """Return the pair, and part of one, that turns so often over the first context."""
        wavelength = scaling.original_max_position_embeddings / (turns * 2 * math.pi)
        return rotary_dim * math.log(wavelength) / (2 * math.log(theta))

    first, last = pair_of(scaling.beta_fast), pair_of(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, rotary_dim - 1)
    if first == last:
        last += 0.001  # as transformers has it: a step, and no division by zero
    return np.clip((np.arange(rotary_dim // 2) - first) / (last - first), 0.0, 1.0)

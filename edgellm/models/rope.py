"""Rotary position embeddings: the wavelengths of feature pairs, with LLaMA's scalings."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.model_config import RopeScaling


def wavelengths(
    head_dim: int, theta: float, scaling: RopeScaling | None
) -> npt.NDArray[np.float32]:
    """Return positions per radian for each of the ``head_dim / 2`` pairs, shape (head_dim / 2,).

    A feature pair at position ``p`` turns by ``p / wavelength`` (Su et al. 2021, arXiv:2104.09864).
    ``linear`` stretches every pair (Chen et al. 2023, arXiv:2306.15595); ``llama3`` stretches slow
    pairs, leaves fast ones and blends between (Llama 3.1's configuration).
    """
    # theta^(2i/D) of pair i
    lengths = theta ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    if scaling is None:
        return lengths.astype(np.float32)
    if scaling.kind == "linear":
        return (lengths * scaling.factor).astype(np.float32)
    # turns of each pair over the context that the model was trained on at first
    turns = scaling.original_max_position_embeddings / (2 * math.pi * lengths)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    # 0 for slow pairs, which are stretched; 1 for fast ones, which stay
    unscaled = np.clip((turns - low) / (high - low), 0.0, 1.0)
    # frequencies, the inverses of wavelengths, are what is blended
    frequencies = unscaled / lengths + (1.0 - unscaled) / (scaling.factor * lengths)
    return (1.0 / frequencies).astype(np.float32)

"""Rotary position embeddings: the wavelength of each pair of features, with the scalings of the LLaMA family."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.model_config import RopeScaling


def wavelengths(
    head_dim: int, theta: float, scaling: RopeScaling | None
) -> npt.NDArray[np.float32]:
    """Return positions per radian for each of the ``head_dim / 2`` pairs, shape (head_dim / 2,).

    A feature pair at position ``p`` turns by ``p / wavelength``. ``linear`` stretches every pair
    (Chen et al. 2023, arXiv:2306.15595); ``llama3`` stretches slow pairs, leaves fast ones and
    blends between (Llama 3.1's configuration).
    """
    lengths = theta ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    if scaling is None:
        return lengths.astype(np.float32)
    if scaling.kind == "linear":
        return (lengths * scaling.factor).astype(np.float32)
    turns = scaling.original_max_position_embeddings / (2 * math.pi * lengths)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1.0 / (kept / lengths + (1.0 - kept) / (scaling.factor * lengths))).astype(np.float32)

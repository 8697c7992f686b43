"""Cosines and sines of positions, as the CPU kernels read them."""

# L tokens, D head size

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.layer_config import Rotary
from edgellm.kernels.layer import cos_sin
from edgellm.kv_cache.path_cache import PathCache
from edgellm.kv_cache.token_tree import height
from edgellm.models.layers import Span
from edgellm.models.rope import wavelengths


class Rotations:
    """Cosines and sines of positions; the last ones are kept, since all layers ask for the same."""

    def __init__(self, lengths: npt.NDArray[np.float32], head_dim: int, factor: float) -> None:
        self._lengths = lengths
        self._factor = np.float32(factor)
        self._head_dim = head_dim
        self._last = ((-1, -1), np.empty(0, np.float32))

    def of(self, start: int, tokens: int) -> npt.NDArray[np.float32]:
        """Return cosines, then sines, of each position, and zeros behind them: (L, D), flat."""
        key, angles = self._last
        if key != (start, tokens):
            table = np.zeros((tokens, self._head_dim), np.float32)
            table[:, : 2 * len(self._lengths)] = self._factor * cos_sin(
                self._lengths, start, tokens
            )
            angles = table.ravel()
            self._last = ((start, tokens), angles)
        return angles


@cache
def rotations_of(head_dim: int, rotary: Rotary) -> Rotations:
    """Return those of a head's first dimensions, shared by all layers that turn alike."""
    factor = 1.0
    # of whole heads it is in the scale of attention
    if rotary.dim != head_dim:
        factor = rotary.attention_factor
    return Rotations(wavelengths(rotary.dim, rotary.theta, rotary.scaling), head_dim, factor)


def write_rotations(
    rotations: Rotations,
    spans: Sequence[Span],
    target: npt.NDArray[np.float32],
    *,
    layer: int = 0,
) -> None:
    """Write the cosines and sines of all spans' positions in a layer, one after the other."""
    begin = 0
    for span in spans:
        cache = span.caches[layer]
        offset = cache.offset
        if isinstance(cache, PathCache):
            first, last = int(cache.positions.min()), int(cache.positions.max())
            by_position = rotations.of(first, last + 1 - first).reshape(last + 1 - first, -1)
            angles = by_position[cache.positions - first].ravel()
        elif span.levels:
            by_level = rotations.of(offset, height(span.levels)).reshape(height(span.levels), -1)
            angles = by_level[np.array(span.levels)].ravel()
        else:
            angles = rotations.of(offset, span.length)
        target[begin : begin + angles.size] = angles
        begin += angles.size

"""The share of an adapter's change that is left after its matrices were quantized again."""

from __future__ import annotations

import numpy as np

from edgellm.converters.lora.merged_source import MergedSource
from edgellm.converters.tensors.recipe import make_recipe
from edgellm.converters.tensors.settings import ConversionSettings
from edgellm.converters.tensors.source import Source
from edgellm.converters.tensors.weight_stream import float_rows, row_parts


def kept_change(merged: MergedSource, made: Source) -> float | None:
    """Return what is left of all low-rank changes together: 1 is all, 0 nothing.

    It is the projection of what was made, less the base, on the change: rounding that has nothing
    to do with the change cancels out. None where the adapter has no such change, or all zeros.

    Args:
        merged: the base with the adapter.
        made: what was made of it.

    Raises:
        ReadError: one of them cannot be read.
    """
    matrices = make_recipe(made, ConversionSettings()).matrices
    left = whole = 0.0
    for path in merged.low_rank_paths:
        for start, stop in row_parts(*matrices[path].shape):
            base, change = merged.base_and_change(path, start, stop)
            moved = float_rows(made, matrices[path], start, stop) - base
            left += float(np.vdot(moved, change))
            whole += float(np.vdot(change, change))
    if not whole:
        return None
    return left / whole

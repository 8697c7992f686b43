"""The cost of fewer bits for each matrix of a model, measured on a text that it reads.

A change of a matrix by ``d`` changes a token's loss by about half of ``sum(g[o]^2 x[j]^2
d[o,j]^2)``: x is what the matrix reads, g the derivative of the loss by what it writes, and squares
are taken for independent (the diagonal of the Fisher information, taken apart into two means).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import mlx.core as mx
import numpy as np

from edgellm.checkpoint.quantization import AFFINE_BITS, chosen_quantization
from edgellm.converters.mixed_bits.backward import BackwardPass, FisherRows
from edgellm.converters.tensors.recipe import Recipe
from edgellm.converters.tensors.source import Source
from edgellm.converters.tensors.weight_stream import MLX_TYPES, dequantize, quantize
from edgellm.errors import FormatError

Costs = Mapping[str, Mapping[int, float]]
"""By path and bits: what it costs, in nats per token, to store a matrix so."""

MIXED_BITS = AFFINE_BITS[1:]
"""Bits that a recipe chooses from; one bit loses too much where a model was not trained for it."""


def measure(
    source: Source,
    recipe: Recipe,
    sequences: Sequence[Sequence[int]],
    *,
    group_size: int,
    progress: Callable[[int, int], None],
) -> tuple[Costs, float]:
    """Return each matrix's cost by bits, and the text's mean loss in nats per token.

    Args:
        source: the model.
        recipe: its matrices, and the type that scales will have.
        sequences: token ids, all of one length.
        group_size: weights that will share a scale.
        progress: called with bytes read and bytes to be read.

    Raises:
        FormatError: a value on the way is not finite.
        ReadError: the source cannot be read.
    """
    backward = BackwardPass(source, recipe, sequences, progress)
    costs: dict[str, dict[int, float]] = {}
    for seen in backward.run():
        dtype = MLX_TYPES[recipe.matrices[seen.path].dtype]
        of_path = costs.setdefault(seen.path, {})
        for bits, cost in cost_by_bits(seen, group_size, dtype).items():
            of_path[bits] = of_path.get(bits, 0.0) + cost  # a tied embedding is used twice
    every_cost = [cost for of_path in costs.values() for cost in of_path.values()]
    if not np.isfinite([backward.loss, *every_cost]).all():
        raise FormatError(
            "the model's logits or their derivatives are not finite",
            hint="look at it with edgellm verify",
        )
    return costs, backward.loss


def cost_by_bits(seen: FisherRows, group_size: int, dtype: mx.Dtype) -> dict[int, float]:
    """Return what each number of bits costs a matrix; nothing where no group fits its rows.

    Args:
        seen: some of its rows.
        group_size: weights that will share a scale.
        dtype: the type of the scales.
    """
    costs = {}
    for bits in MIXED_BITS:
        form = chosen_quantization(seen.rows.shape[1], bits, group_size)
        if form is not None:
            change = dequantize(quantize(seen.rows, form, dtype), form) - seen.rows
            costs[bits] = float((seen.fisher * mx.square(change)).sum()) / 2
    return costs

"""Lengths of a weight's rows, as DoRA learns them (Liu et al. 2024, arXiv:2402.09353)."""

# I in, O out, R rank

from __future__ import annotations

from collections.abc import Callable, Mapping

import mlx.core as mx

from edgellm.models.linear import DenseLinear, JoinedLinear, Linear, QuantizedLinear
from edgellm.training.operations.products import weight_rows


def row_squares(linear: Linear, members: Mapping[str, int]) -> dict[str, mx.array]:
    """Return the squared lengths of each member's rows (O,).

    Args:
        linear: a stack of matrices.
        members: their names, with the features of each.
    """
    found = mx.concatenate([mx.square(rows).sum(axis=-1) for rows in weight_rows(linear)])
    own, begin = {}, 0
    for member, features in members.items():
        own[member] = found[begin : begin + features]
        begin += features
    mx.eval(own)
    return own


def length_factors(
    multiply: Callable[[mx.array], mx.array],
    members: Mapping[str, int],
    change: Mapping[str, mx.array],
    *,
    scales: Mapping[str, float],
    squares: Mapping[str, mx.array],
) -> mx.array:
    """Return what rows (O,) are multiplied by: their learned length over the one they have.

    The latter, of ``W + s B A``, counts as a constant where derivatives are taken (as in the paper,
    and in PEFT); it follows from ``|W|^2 + 2 s B (A W^T) + s^2 B (A A^T) B^T`` without another copy
    of the weight.

    Args:
        multiply: (R, I) by the transposed weights of all members: (R, O of all).
        members: names of matrices side by side, with the features of each.
        change: numbers of those that are changed.
        scales: what their changes are multiplied by.
        squares: squared lengths of their rows without a change.
    """
    changed = [name for name in members if f"{name}.lora_A" in change]
    downs = {name: mx.stop_gradient(change[f"{name}.lora_A"]) for name in changed}
    # of which each change needs its own rows and columns
    mixed = multiply(mx.concatenate(list(downs.values()))).astype(mx.float32)
    factors, row, column = [], 0, 0
    for member, features in members.items():
        if member not in downs:
            factors.append(mx.ones(features))
            column += features
            continue
        down, scale = downs[member], scales[member]
        up = mx.stop_gradient(change[f"{member}.lora_B"])
        own = mixed[row : row + len(down), column : column + features]
        cross = (up * own.T).sum(axis=-1)
        added = ((up @ (down @ down.T)) * up).sum(axis=-1)
        changed_squares = squares[member] + 2 * scale * cross + scale * scale * added
        # a row of zeros stays one, as in ``converters.lora.changes.row_factors``
        lengths = mx.where(changed_squares > 0, mx.sqrt(changed_squares), 1)
        factors.append(change[f"{member}.lora_magnitude_vector"] / mx.stop_gradient(lengths))
        row, column = row + len(down), column + features
    return mx.concatenate(factors)


def bias_of(linear: Linear) -> mx.array | None:
    """Return what a product adds to its results (O,); None: nothing."""
    if not isinstance(linear, JoinedLinear):
        assert isinstance(linear, DenseLinear | QuantizedLinear), "a layer's weight is one of these"
        return linear.bias
    biases = [bias_of(member) for member in linear.members]
    if all(bias is None for bias in biases):
        return None
    return mx.concatenate(
        [
            mx.zeros(member.out_features) if bias is None else bias
            for member, bias in zip(linear.members, biases, strict=True)
        ]
    )

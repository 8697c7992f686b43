"""An adapter's changes of a layer as the CPU kernels take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import mlx.core as mx

from edgellm.kernels.layer import LayerWeights
from edgellm.kernels.product_steps import Matrix, MatrixChange
from edgellm.models.cpu.linear import address, kernel_matrices
from edgellm.models.layers import LayerChange
from edgellm.models.linear import AddedProduct, DenseLinear, Stretch


def changed_weights(weights: LayerWeights, change: LayerChange | None) -> LayerWeights:
    """Return a layer's weights with a change beside them, which has to live as long.

    Raises:
        BackendError: there are no kernels for numbers of its type.
    """
    if change is None:
        return weights

    def changed(matrices: Sequence[Matrix], stack: str) -> list[Matrix]:
        added, stretch = change.products.get(stack, ()), change.stretches.get(stack)
        return _changed(matrices, added, stretch)

    return replace(
        weights,
        qkv=changed(weights.qkv, "self_attn.qkv_proj"),
        output=changed(weights.output, "self_attn.o_proj"),
        gate_up=changed(weights.gate_up, "mlp.gate_up_proj"),
        down=changed(weights.down, "mlp.down_proj"),
    )


def _changed(
    matrices: Sequence[Matrix], added: Sequence[AddedProduct], stretch: Stretch | None
) -> list[Matrix]:
    """Return the matrices of a stack, each with what is done to its own results."""
    changed = []
    first = factors = 0
    if stretch is not None:
        factors = address(stretch.factors)
    for matrix in matrices:
        stop = first + matrix.out_features
        own = [
            MatrixChange(product.first - first, _matrix(product.down), _matrix(product.up))
            for product in added
            if first <= product.first < stop
        ]
        own_factors = 0
        if factors:
            own_factors = factors + 4 * first
        changed.append(replace(matrix, changes=tuple(own), stretch=own_factors))
        first = stop
    return changed


def _matrix(array: mx.array) -> Matrix:
    [matrix] = kernel_matrices(DenseLinear(array))
    return matrix

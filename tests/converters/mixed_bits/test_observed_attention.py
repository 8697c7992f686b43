"""Attention by NumPy beside MLX's: results and derivatives."""

import mlx.core as mx
import numpy as np
import pytest

from edgellm.kv_cache.kv_format import attention
from edgellm.training.operations.attention import attention_by_numpy

SCALE = 0.3
WINDOW = mx.array(np.tri(9, dtype=bool) & ~np.tri(9, k=-4, dtype=bool))


@pytest.mark.parametrize("cap", [None, 0.5])
@pytest.mark.parametrize("mask", [None, "causal", WINDOW])
def test_results_and_derivatives_are_those_of_mlx(mask, cap):
    draw = np.random.RandomState(0).standard_normal
    shapes = [(1, 4, 9, 8), (1, 2, 9, 8), (1, 2, 9, 8), (1, 4, 9, 8)]
    queries, keys, values, gradient = (mx.array(draw(shape).astype(np.float32)) for shape in shapes)

    def ours(*arrays):
        return [attention_by_numpy(*arrays, scale=SCALE, mask=mask, cap=cap)]

    def theirs(*arrays):
        return [attention(*arrays, scale=SCALE, mask=mask, cap=cap)]

    inputs = [queries, keys, values]
    (output,), derivatives = mx.vjp(ours, inputs, [gradient])
    (expected,), expected_derivatives = mx.vjp(theirs, inputs, [gradient])
    assert np.allclose(output, expected, atol=1e-5)
    for got, wanted in zip(derivatives, expected_derivatives, strict=True):
        assert np.allclose(got, wanted, atol=1e-5)

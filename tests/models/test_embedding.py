"""Rows of an embedding that NumPy reads, against MLX's own."""

import mlx.core as mx
import numpy as np
import pytest

from edgellm.checkpoint.quantization import Quantization
from edgellm.models.embedding import EmbeddingRows, has_rows
from edgellm.models.linear import DenseLinear, QuantizedLinear

pytestmark = pytest.mark.usefixtures("on_the_cpu")

IDS = [[3, 0, 18], [18, 7, 3]]
DTYPES = [mx.float16, mx.bfloat16, mx.float32]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bits", [None, 1, 2, 4, 8])
def test_rows_are_mlx_own(bits, dtype):
    numbers = mx.random.normal((19, 128), key=mx.random.key(0)).astype(dtype)
    weight = DenseLinear(numbers)
    if bits is not None:
        form = Quantization(bits, 32)
        weight = QuantizedLinear(*mx.quantize(numbers, **form.as_config()), form)
    assert has_rows(weight)
    expected = np.array(weight.rows_at(mx.array(IDS), mx.float32))
    assert np.array_equal(EmbeddingRows(weight)(IDS), expected)


@pytest.mark.parametrize("form", [Quantization(6, 64), Quantization(4, 32, "mxfp4")], ids=str)
def test_other_forms_are_mlx_s(form):
    numbers = mx.random.normal((19, 128), key=mx.random.key(0))
    codes, scales, *biases = mx.quantize(numbers, **form.as_config())
    assert not has_rows(QuantizedLinear(codes, scales, next(iter(biases), None), form))

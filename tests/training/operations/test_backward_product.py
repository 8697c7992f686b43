"""The derivative of a frozen product by its inputs, against NumPy in float64."""

import mlx.core as mx
import numpy as np
import pytest

from edgellm.checkpoint.quantization import Quantization
from edgellm.errors import BackendError
from edgellm.kernels.host import kernel_engine, unavailable
from edgellm.models.linear import DenseLinear, JoinedLinear, QuantizedLinear
from edgellm.training.operations.backward_product import BackwardProduct
from edgellm.training.operations.products import frozen_product

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))
COLUMNS = 128


def engine(activations):
    return kernel_engine(threads=2, activations=activations)


def numbers(rows, columns=COLUMNS):
    draws = np.random.default_rng(rows).standard_normal((rows, columns), dtype=np.float32)
    return mx.array(draws)


def quantized(rows, bits, mode="affine"):
    """A weight, and what it stands for in float64."""
    form = Quantization(bits, {"affine": 64, "mxfp4": 32}[mode], mode)
    codes, scales, *biases = mx.quantize(numbers(rows), **form.as_config())
    wide = mx.dequantize(codes, scales, *biases, **form.as_config())
    if mode == "mxfp4":
        wide = wide.astype(mx.float32)
    mx.eval(codes, scales, biases)
    linear = QuantizedLinear(codes, scales, biases[0] if biases else None, form)
    return linear, np.array(wide, np.float64)


def dense(rows):
    weight = numbers(rows).astype(mx.bfloat16)
    mx.eval(weight)
    return DenseLinear(weight), np.array(weight.astype(mx.float32), np.float64)


def stack():
    """Matrices of three forms that lie side by side."""
    members = [quantized(208, 4), dense(40), quantized(70, 6)]
    return JoinedLinear([linear for linear, _ in members]), np.concatenate(
        [wide for _, wide in members]
    )


def by_output(tokens, features):
    return np.random.default_rng(tokens).standard_normal((tokens, features), dtype=np.float32)


def distance(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("activations", ["int8", "float"])
@pytest.mark.parametrize("tokens", [1, 7, 70, 600])
def test_the_product_is_that_of_float64(activations, tokens):
    linear, weight = stack()
    derivatives = by_output(tokens, len(weight))
    # the largest weights have several blocks
    product = BackwardProduct(engine(activations), linear, turned_bytes=1)
    found = product(derivatives)
    # where there are tiles or pairs, rounded activations mean 16 bits here
    isa = engine(activations).isa
    most = 4e-3 if activations == "int8" and (isa.tiles or isa.pairs) else 2e-6
    assert distance(found, derivatives @ weight) < most


def test_new_contents_at_the_same_place_are_seen():
    (linear, _), (other, weight) = quantized(96, 4), quantized(97, 4)
    product, derivatives = BackwardProduct(engine("float"), linear), by_output(20, 96)
    product(derivatives)
    for name in ("weight", "scales", "biases"):
        np.array(getattr(linear, name), copy=False)[:] = np.array(getattr(other, name))[:96]
    assert distance(product(derivatives), derivatives @ weight[:96]) < 2e-6


def test_a_weight_of_a_few_rows_is_refused():
    with pytest.raises(BackendError, match="turn 3 rows"):
        BackwardProduct(engine("float"), dense(3)[0])


@pytest.mark.filterwarnings("ignore:arithmetic runs in MLX")
@pytest.mark.parametrize("kind", ["a few rows", "another mode", "no kernels"])
def test_without_a_kernel_the_derivative_is_the_same(kind):
    linear, weight = quantized(64, 4, "mxfp4") if kind == "another mode" else dense(3)
    kernels = None if kind == "no kernels" else engine("float")
    product = frozen_product(linear, kernels)
    derivatives = by_output(9, len(weight))
    _, [found] = mx.vjp(
        lambda x: [product(x)], [mx.zeros((1, 9, COLUMNS))], [mx.array(derivatives)[None]]
    )
    assert distance(np.array(found)[0], derivatives @ weight) < 2e-6

"""Rows of a weight turned into plain numbers, against MLX's own."""

import mlx.core as mx
import numpy as np
import pytest

from edgellm.kernels.codegen.abi import TURN
from edgellm.kernels.codegen.weight_format import BITS, GROUPS, WeightFormat
from edgellm.kernels.host import unavailable
from edgellm.kernels.kernel_engine import make_step, step_array

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))
KINDS = {"f16": mx.float16, "bf16": mx.bfloat16, "f32": mx.float32}
# any two of bits and group, and each of them with every kind of scales
FORMATS = [
    WeightFormat(bits, group, sorted(KINDS)[(row + column) % 3])
    for row, bits in enumerate(BITS)
    for column, group in enumerate(GROUPS)
] + [WeightFormat(0, 0, kind) for kind in KINDS]


def stored(form, rows, columns):
    """A weight's parts, and its numbers in float32."""
    draws = np.random.default_rng(rows).standard_normal((rows, columns), dtype=np.float32)
    numbers = mx.array(draws).astype(KINDS[form.kind])
    if form.dense:
        return [numbers], numbers.astype(mx.float32)
    codes, *tables = mx.quantize(numbers, group_size=form.group, bits=form.bits)
    wide = [table.astype(mx.float32) for table in tables]
    return [codes, *tables], mx.dequantize(codes, *wide, group_size=form.group, bits=form.bits)


def turned(engine, form, parts, shape, kind):
    rows, columns = shape
    made = np.zeros((columns, rows), {"f32": np.float32, "bf16": np.uint16}[kind])
    views = [np.array(part.view(mx.uint8), copy=False) for part in parts]
    names = ("weight", "scales", "biases")
    addresses = {name: view.ctypes.data for name, view in zip(names, views, strict=False)}
    step = make_step(
        engine.kernel("turn", form, kind),
        TURN,
        **addresses,
        rows=rows,
        columns=columns,
        target=made.ctypes.data,
    )
    with engine.lock:
        engine.run(step_array([step]), 1)
    if kind == "bf16":
        return mx.array(made).view(mx.bfloat16)
    return mx.array(made)


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_the_numbers_are_those_of_mlx_turned(floats, form):
    # neither is a multiple of what is turned at once
    rows, columns = 37, 3 * form.group or 41
    parts, numbers = stored(form, rows, columns)
    mx.eval(parts)
    exact = turned(floats, form, parts, (rows, columns), "f32")
    np.testing.assert_allclose(np.array(exact), np.array(numbers.T), atol=1e-6)
    rounded = turned(floats, form, parts, (rows, columns), "bf16")
    assert mx.array_equal(rounded, exact.astype(mx.bfloat16))

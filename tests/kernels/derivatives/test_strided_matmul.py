"""Products of parts of something larger, against NumPy in float64."""

import numpy as np
import pytest

from edgellm.kernels.codegen.abi import STRIDED_MATMUL
from edgellm.kernels.host import unavailable
from edgellm.kernels.kernel_engine import float32_bits, make_step, step_array

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))


def multiply(engine, target, out, left, right, *, factor, item, threads):
    step = make_step(
        engine.kernel("strided_matmul", target),
        STRIDED_MATMUL,
        left=left.ctypes.data,
        left_row=left.strides[0],
        left_column=left.strides[1],
        right=right.ctypes.data,
        right_row=right.strides[0],
        out=out.ctypes.data,
        out_row=out.strides[0],
        rows=left.shape[0],
        columns=right.shape[1],
        summed=left.shape[1],
        factor=float32_bits(factor),
        item_rows=item[0],
        item_columns=item[1],
    )
    with engine.lock:
        engine.run(step_array([step]), 1, threads=threads)


@pytest.mark.parametrize("rows", [1, 13, 40])
@pytest.mark.parametrize("columns", [5, 32, 63])
def test_parts_are_multiplied_whoever_takes_them(floats, rows, columns):
    draws = np.random.default_rng(rows * columns)
    summed = 29
    # turned, and columns of wider rows
    left = draws.standard_normal((summed + 2, rows + 3), np.float32)[1:-1, 2:-1].T
    right = draws.standard_normal((summed, columns + 9), np.float32)[:, 4:-5]
    wide = draws.standard_normal((rows, columns + 7), np.float32)
    exact = 0.5 * left.astype(np.float64) @ right
    for target, begin in (("set", 0.0), ("add", 1.0)):
        found = []
        for item, threads in (((64, 64), 1), ((8, 16), 2)):
            whole = wide.copy()
            out = whole[:, 3:-4]
            multiply(floats, target, out, left, right, factor=0.5, item=item, threads=threads)
            own = begin * wide[:, 3:-4] + exact
            np.testing.assert_allclose(out, own, rtol=0, atol=2e-6 * np.abs(exact).max())
            out[:] = wide[:, 3:-4]
            assert np.array_equal(whole, wide), "nothing beside it is written"
            multiply(floats, target, out, left, right, factor=0.5, item=item, threads=threads)
            found.append(out.copy())
        assert np.array_equal(*found)

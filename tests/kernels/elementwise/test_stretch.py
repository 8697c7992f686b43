"""Results with factors, written and added, against NumPy."""

import numpy as np
import pytest

from edgellm.kernels.codegen.abi import STRETCH
from edgellm.kernels.host import unavailable
from edgellm.kernels.kernel_engine import make_step, step_array

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))


@pytest.mark.parametrize("width", [1, 37, 256])
@pytest.mark.parametrize("target", ["set", "add"])
def test_results_are_multiplied_beside_others_that_stay(floats, width, target):
    draws = np.random.default_rng(width)
    source = draws.standard_normal((5, width), dtype=np.float32)
    factors = draws.standard_normal(width, dtype=np.float32)
    out = draws.standard_normal((5, width + 9), dtype=np.float32)
    before = out.copy()
    step = make_step(
        floats.kernel("stretch", target),
        STRETCH,
        source=source.ctypes.data,
        source_stride=4 * width,
        factors=factors.ctypes.data,
        out=out.ctypes.data + 16,
        out_stride=4 * (width + 9),
        out_features=width,
    )
    with floats.lock:
        floats.run(step_array([step]), 5)
    expected = before.copy()
    kept = before[:, 4 : 4 + width] if target == "add" else 0
    expected[:, 4 : 4 + width] = kept + source * factors
    assert np.array_equal(out, expected)

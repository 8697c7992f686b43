"""The gate against its formula in float64."""

import numpy as np
import pytest
from support.kernel_steps import swiglu

from edgellm.kernels.host import unavailable

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))


def test_the_gate_is_silu_even_far_out(floats):
    gate = np.concatenate([np.linspace(-100, 100, 4001), [0.0, -1e4, 1e4]]).astype(np.float32)
    out = swiglu(floats, np.concatenate([gate, np.ones_like(gate)])[None])
    wide = gate.astype(np.float64)
    assert np.allclose(out, wide / (1 + np.exp(np.minimum(-wide, 700))), rtol=2e-6, atol=1e-30)

"""Engines that a process shares, and the description of this machine's kernels."""

import pytest

from edgellm.kernels.codegen.isa import host_isas
from edgellm.kernels.host import describe, kernel_engine, unavailable

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))


def test_the_engine_is_one_for_equal_settings():
    assert kernel_engine(threads=2) is kernel_engine(threads=2)
    assert kernel_engine(threads=2) is not kernel_engine(threads=1)
    described = describe()
    assert (described.isa, described.reason) == (host_isas()[0].name, None)

"""Kernels compiled once for all tests, for every instruction set that this processor has."""

import pytest

from edgellm.kernels.code_cache import CodeCache
from edgellm.kernels.codegen.isa import host_isas
from edgellm.kernels.host import unavailable
from edgellm.kernels.kernel_engine import KernelEngine

ISAS = []
if unavailable() is None:
    ISAS = host_isas()


@pytest.fixture(scope="session", params=ISAS, ids=lambda isa: isa.name)
def code(request):
    return CodeCache(request.param, folder=None)


@pytest.fixture(scope="session")
def floats(code):
    """An engine whose products keep float32."""
    return KernelEngine(code, threads=2, activations="float")


@pytest.fixture(scope="session")
def rounded(code):
    """An engine whose products round activations."""
    return KernelEngine(code, threads=2, activations="int8")

"""Kernels compiled once for all tests, for every instruction set that this processor has."""

from functools import cache

import pytest
from support.instruction_sets import below

from edgellm.kernels.code_cache import CodeCache, default_folder
from edgellm.kernels.codegen.isa import host_isas
from edgellm.kernels.host import unavailable
from edgellm.kernels.kernel_engine import KernelEngine

ISAS = []
if unavailable() is None:
    ISAS = host_isas()
FLOATS = [(isa, "float") for isa in ISAS if below(isa) is None]
"""Without those whose products of floats are another one's code."""
ROUNDED = [(isa, "int8") for isa in ISAS if not isa.pairs]
"""Pairs are for derivatives alone: other products are those of the same set without them."""
EITHER = [*FLOATS, *(own for own in ROUNDED if own[0].dot is not None)]
"""Those that cannot round keep float32 in any case."""


@cache
def code_of(isa):
    return CodeCache(isa, folder=default_folder())


@cache
def engine_of(isa, activations):
    return KernelEngine(code_of(isa), threads=2, activations=activations)


def named(choice):
    return "-".join([choice[0].name, choice[1]])


@pytest.fixture(params=FLOATS, ids=named)
def floats(request):
    """An engine whose products keep float32."""
    return engine_of(*request.param)


@pytest.fixture(params=ROUNDED, ids=named)
def rounded(request):
    """An engine whose products round activations."""
    return engine_of(*request.param)


@pytest.fixture(params=EITHER, ids=named)
def either(request):
    """An engine of either kind."""
    return engine_of(*request.param)

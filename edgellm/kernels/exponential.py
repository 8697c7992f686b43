"""The exponential function on vectors."""

from __future__ import annotations

import math

from edgellm.kernels.emitter import F32, I32, Emitter, Value, vector

_TERMS = [math.log(2.0) ** power / math.factorial(power) for power in range(8)]
"""2^f = sum of (f ln 2)^n / n!; for |f| <= 1/2 the terms left out are below 6e-9."""


def exp(e: Emitter, x: Value) -> Value:
    """e^x for float32 lanes, within 2 units of the last place; below 2^-126 it stays there."""
    lanes = x.type.count
    floats, words = vector(F32, lanes), vector(I32, lanes)
    power = e.b.fmul(x, e.const(floats, math.log2(math.e)))
    power = e.binary("minnum", e.binary("maxnum", power, e.const(floats, -126.0)), e.const(floats, 127.0))
    whole = e.unary("rint", power)
    rest = e.b.fsub(power, whole)
    result = e.const(floats, _TERMS[-1])
    for term in _TERMS[-2::-1]:
        result = e.fma(result, rest, e.const(floats, term))
    exponent = e.b.shl(e.b.add(e.b.fptosi(whole, words), e.const(words, 127)), e.const(words, 23))
    return e.b.fmul(result, e.b.bitcast(exponent, floats))

"""The exponential function on vectors."""

from __future__ import annotations

import math

from edgellm.kernels.codegen.emitter import F32, I32, Emitter, Value, vector

_TERMS = [1 / math.factorial(power) for power in range(8)]
"""e^r = sum of r^n / n!; for |r| <= ln(2) / 2 the terms left out are below 6e-9."""

_LOG2_HIGH, _LOG2_LOW = 0.693359375, -2.12194440e-4
"""ln(2) in two parts (Cody and Waite 1980), so that ``x - n ln(2)`` keeps its digits."""

_LOWEST, _HIGHEST = -87.0, 88.0
"""Beyond these the result stays where it is: float32 has no more room."""

ROUNDER = 1.5 * 2.0**23
"""Added and taken away again, it leaves a float32 rounded."""


def exp(e: Emitter, x: Value) -> Value:
    """e^x for float32 lanes, to 2e-7 of it."""
    lanes = x.type.count
    floats, words = vector(F32, lanes), vector(I32, lanes)
    x = e.binary(
        "minnum", e.binary("maxnum", x, e.const(floats, _LOWEST)), e.const(floats, _HIGHEST)
    )
    rounder = e.const(floats, ROUNDER)
    whole = e.b.fsub(e.fma(x, e.const(floats, math.log2(math.e)), rounder), rounder)
    rest = e.fma(whole, e.const(floats, -_LOG2_HIGH), x)
    rest = e.fma(whole, e.const(floats, -_LOG2_LOW), rest)
    result = e.const(floats, _TERMS[-1])
    for term in _TERMS[-2::-1]:
        result = e.fma(result, rest, e.const(floats, term))
    exponent = e.b.shl(e.b.add(e.b.fptosi(whole, words), e.const(words, 127)), e.const(words, 23))
    return e.b.fmul(result, e.b.bitcast(exponent, floats))

"""The exponential function on vectors: range reduction, then a polynomial."""

from __future__ import annotations

import math

from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.values import F32, I32, Value, vector

_TERMS = [1 / math.factorial(power) for power in range(8)]
"""e^r = sum of r^n / n!; for |r| <= ln(2) / 2 the terms left out are below 6e-9."""

_LN2_HIGH = 0.693359375
_LN2_LOW = -2.12194440e-4
"""ln(2) in two parts (Cody and Waite 1980), so that ``x - n ln(2)`` keeps its digits.

The high part has few digits: its product with n is exact.
"""

_LOWEST, _HIGHEST = -87.0, 88.0
"""Beyond these the result stays where it is: float32 ends there."""

ROUNDER = 1.5 * 2.0**23
"""Added and taken away again, it leaves a float32 rounded: no digits after the point are left."""


def exp(e: Emitter, x: Value) -> Value:
    """Return e^x for float32 lanes, to 2e-7 of it.

    With n = round(x / ln(2)) and r = x - n ln(2), e^x = 2^n e^r.
    """
    lanes = x.type.count
    floats = vector(F32, lanes)
    words = vector(I32, lanes)
    x = e.binary("maxnum", x, e.const(floats, _LOWEST))
    x = e.binary("minnum", x, e.const(floats, _HIGHEST))
    rounder = e.const(floats, ROUNDER)
    n = e.b.fsub(e.fma(x, e.const(floats, math.log2(math.e)), rounder), rounder)
    r = e.fma(n, e.const(floats, -_LN2_HIGH), x)
    r = e.fma(n, e.const(floats, -_LN2_LOW), r)
    # Horner's scheme, the highest power first
    power = e.const(floats, _TERMS[-1])
    for term in _TERMS[-2::-1]:
        power = e.fma(power, r, e.const(floats, term))
    # 2^n: n in the place of a float32's exponent, which is stored plus 127
    exponent = e.b.shl(e.b.add(e.b.fptosi(n, words), e.const(words, 127)), e.const(words, 23))
    return e.b.fmul(power, e.b.bitcast(exponent, floats))

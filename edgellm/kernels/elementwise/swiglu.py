"""The gate of the feed-forward part."""

from __future__ import annotations

from edgellm.kernels.codegen.emitter import F32, Emitter, Value, vector
from edgellm.kernels.codegen.exp import exp
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import next_items

_ITEM = 1024
"""Features that a thread takes at once."""


def emit_swiglu(isa: Isa, name: str) -> str:
    """out = gate / (1 + e^-gate) * up.

    Arguments: 1 gate and up (L, 2F), 2 out (L, F), 3 F.
    """
    e = Emitter(isa, name)
    both, out, width = e.address(1), e.address(2), e.argument(3)
    pieces = e.ceil_div(width, _ITEM)

    def one(item: Value) -> None:
        token, first = e.div(item, pieces), e.mul(e.rem(item, pieces), _ITEM)
        row = e.mul(token, width)
        gates = e.at(both, e.mul(e.add(e.mul(row, 2), first), 4))
        ups, outs = e.at(gates, e.mul(width, 4)), e.at(out, e.mul(e.add(row, first), 4))

        def some(place: Value, lanes: int) -> None:
            at, floats = e.mul(place, 4), vector(F32, lanes)
            gate, up = e.load(gates, at, floats), e.load(ups, at, floats)
            below = e.b.fadd(exp(e, e.b.fneg(gate)), e.const(floats, 1.0))
            e.store(e.b.fmul(e.b.fdiv(gate, below), up), outs, at)

        e.sweep(e.min(_ITEM, e.sub(width, first)), some)

    next_items(e, e.mul(e.tokens, pieces), one)
    return e.finish()

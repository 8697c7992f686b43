"""The gate of the feed-forward part: SwiGLU (Shazeer 2020, arXiv:2002.05202)."""

from __future__ import annotations

from edgellm.kernels.codegen.abi import SWIGLU
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.exp import exp
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import parallel_for
from edgellm.kernels.codegen.values import F32, Value, vector

_ITEM_FEATURES = 1024
"""Features that a thread takes at once."""


def emit_swiglu(isa: Isa, name: str) -> str:
    """Emit ``swiglu``: ``out = gate / (1 + e^-gate) * up``.

    The arguments are those of ``abi.SWIGLU``.
    """
    e = Emitter(isa, name, SWIGLU)
    gate_up = e.address("gate_up")
    out = e.address("out")
    inner = e.argument("inner")
    items_per_token = e.ceil_div(inner, _ITEM_FEATURES)

    def one_item(item: Value) -> None:
        token = e.div(item, items_per_token)
        first = e.mul(e.rem(item, items_per_token), _ITEM_FEATURES)
        row = e.mul(token, inner)
        # (L, 2F): a token's gates, then what they gate
        gates = e.at(gate_up, e.mul(e.add(e.mul(row, 2), first), 4))
        ups = e.at(gates, e.mul(inner, 4))
        outs = e.at(out, e.mul(e.add(row, first), 4))

        def gate_features(place: Value, lanes: int) -> None:
            offset = e.mul(place, 4)
            floats = vector(F32, lanes)
            gate = e.load(gates, offset, floats)
            up = e.load(ups, offset, floats)
            # silu(gate) * up
            divisor = e.b.fadd(exp(e, e.b.fneg(gate)), e.const(floats, 1.0))
            e.store(e.b.fmul(e.b.fdiv(gate, divisor), up), outs, offset)

        e.sweep(e.min(_ITEM_FEATURES, e.sub(inner, first)), gate_features)

    parallel_for(e, e.mul(e.tokens, items_per_token), one_item)
    return e.finish()

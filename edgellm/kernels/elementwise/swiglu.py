"""The gate of the feed-forward part: SwiGLU (Shazeer 2020, arXiv:2002.05202)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from edgellm.kernels.codegen.abi import SWIGLU, SWIGLU_BACKWARD
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

    def gate_features(rows: _Rows, offset: Value, lanes: int) -> None:
        floats = vector(F32, lanes)
        gate = e.load(rows.gates, offset, floats)
        up = e.load(rows.ups, offset, floats)
        # silu(gate) * up
        divisor = e.b.fadd(exp(e, e.b.fneg(gate)), e.const(floats, 1.0))
        e.store(e.b.fmul(e.b.fdiv(gate, divisor), up), rows.outs, offset)

    return _for_features(e, gate_features)


def emit_swiglu_backward(isa: Isa, name: str) -> str:
    """Emit ``swiglu_backward``: derivatives by gates and ups.

    With s = 1 / (1 + e^-gate) they are ``s (1 + gate (1 - s)) up`` and ``s gate``, times ``out``.
    The arguments are those of ``abi.SWIGLU_BACKWARD``.
    """
    e = Emitter(isa, name, SWIGLU_BACKWARD)
    inner = e.argument("inner")
    by_gate_up = e.address("by_gate_up")

    def differentiate(rows: _Rows, offset: Value, lanes: int) -> None:
        floats = vector(F32, lanes)
        one = e.const(floats, 1.0)
        gate = e.load(rows.gates, offset, floats)
        up = e.load(rows.ups, offset, floats)
        by_out = e.load(rows.outs, offset, floats)
        share = e.b.fdiv(one, e.b.fadd(exp(e, e.b.fneg(gate)), one))
        silu = e.b.fmul(share, gate)
        # s + s g (1 - s)
        slope = e.fma(silu, e.b.fsub(one, share), share)
        target = e.at(by_gate_up, rows.start)
        e.store(e.b.fmul(e.b.fmul(slope, up), by_out), target, offset)
        e.store(e.b.fmul(silu, by_out), e.at(target, e.mul(inner, 4)), offset)

    return _for_features(e, differentiate)


class _Rows(NamedTuple):
    """Some features of a token: addresses of theirs.

    Attributes:
        start: from the first byte of ``gate_up`` to ``gates``.
        gates: of the token.
        ups: what they gate.
        outs: the results.
    """

    start: Value
    gates: Value
    ups: Value
    outs: Value


def _for_features(e: Emitter, body: Callable[[_Rows, Value, int], None]) -> str:
    """Return the function that does ``body(rows, offset, lanes)`` for all features."""
    gate_up = e.address("gate_up")
    out = e.address("out")
    inner = e.argument("inner")
    items_per_token = e.ceil_div(inner, _ITEM_FEATURES)

    def one_item(item: Value) -> None:
        token = e.div(item, items_per_token)
        first = e.mul(e.rem(item, items_per_token), _ITEM_FEATURES)
        row = e.mul(token, inner)
        # (L, 2F): a token's gates, then what they gate
        start = e.mul(e.add(e.mul(row, 2), first), 4)
        gates = e.at(gate_up, start)
        outs = e.at(out, e.mul(e.add(row, first), 4))
        rows = _Rows(start, gates, e.at(gates, e.mul(inner, 4)), outs)

        def some_features(place: Value, lanes: int) -> None:
            body(rows, e.mul(place, 4), lanes)

        e.sweep(e.min(_ITEM_FEATURES, e.sub(inner, first)), some_features)

    parallel_for(e, e.mul(e.tokens, items_per_token), one_item)
    return e.finish()

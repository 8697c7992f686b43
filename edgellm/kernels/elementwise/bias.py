"""The bias of a product, where a model has one."""

from __future__ import annotations

from edgellm.kernels.codegen.emitter import F32, Emitter, Value, vector
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import next_items
from edgellm.kernels.codegen.unpack import load_floats
from edgellm.kernels.codegen.weight_format import ITEM_BYTES


def emit_bias(isa: Isa, name: str, kind: str) -> str:
    """out[t] += bias, a token an item.

    Arguments: 1 out, 2 bytes from one token's results to the next's, 3 bias (rows) of ``kind``, 4
        rows.
    """
    e = Emitter(isa, name)
    out, stride, bias, rows = e.address(1), e.argument(2), e.address(3), e.argument(4)

    def one(token: Value) -> None:
        row = e.at(out, e.mul(token, stride))

        def some(place: Value, lanes: int) -> None:
            there = e.load(row, e.mul(place, 4), vector(F32, lanes))
            plus = load_floats(e, bias, e.mul(place, ITEM_BYTES[kind]), kind, lanes)
            e.store(e.b.fadd(there, plus), row, e.mul(place, 4))

        e.sweep(rows, some)

    next_items(e, e.tokens, one)
    return e.finish()

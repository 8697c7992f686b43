"""RMS norm of each token's features."""

from __future__ import annotations

from collections.abc import Sequence

from edgellm.kernels.codegen.emitter import F32, Emitter, Value, vector
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import next_items
from edgellm.kernels.codegen.unpack import load_floats
from edgellm.kernels.codegen.weight_format import ITEM_BYTES


def emit_norm(isa: Isa, name: str, kind: str) -> str:
    """out = x / sqrt(mean(x^2) + eps) * weight, a token an item.

    Arguments: 1 x (L, E), 2 weight (E) of ``kind``, 3 out (L, E), 4 E, 5 eps (float32).
    """
    e = Emitter(isa, name)
    x, weight, out, width, eps = (
        e.address(1),
        e.address(2),
        e.address(3),
        e.argument(4),
        e.argument(5, F32),
    )

    def one(token: Value) -> None:
        start = e.mul(token, e.mul(width, 4))
        normalize(e, (e.at(x, start), e.at(out, start)), (weight, kind), width, eps)

    next_items(e, e.tokens, one)
    return e.finish()


def normalize(
    e: Emitter, places: tuple[Value, Value], weight: tuple[Value, str], width: Value, eps: Value
) -> None:
    """Write the norm of ``width`` numbers, times a weight (its address and kind), from one place to another."""
    x, out = places

    def squares(place: Value, lanes: int, total: Value) -> Sequence[Value]:
        number = e.load(x, e.mul(place, 4), vector(F32, lanes))
        return [e.fma(number, number, total)]

    wide, rest = e.sweep(width, squares, [e.const(vector(F32, e.isa.lanes), 0.0)])
    total = e.b.fadd(e.sum(wide), e.sum(rest))
    mean = e.b.fdiv(total, e.b.uitofp(width, F32))
    factor = e.b.fdiv(e.const(F32, 1.0), e.unary("sqrt", e.b.fadd(mean, eps)))

    def scaled(place: Value, lanes: int) -> None:
        number = e.load(x, e.mul(place, 4), vector(F32, lanes))
        by = load_floats(e, weight[0], e.mul(place, ITEM_BYTES[weight[1]]), weight[1], lanes)
        e.store(e.b.fmul(e.b.fmul(number, e.spread(factor, lanes)), by), out, e.mul(place, 4))

    e.sweep(width, scaled)

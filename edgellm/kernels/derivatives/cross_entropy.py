"""The loss of each row of logits, and its derivative."""

# V vocabulary

from __future__ import annotations

from collections.abc import Sequence

from edgellm.kernels.codegen.abi import CROSS_ENTROPY
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.exp import exp
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import parallel_for
from edgellm.kernels.codegen.values import F32, I64, Value, vector

_LOWEST = -3.0e38
"""Below all logits."""


def emit_cross_entropy(isa: Isa, name: str) -> str:
    """Emit ``cross_entropy``: of each row ``softmax(logits) - 1`` at its target, and the loss.

    The loss is ``log(sum) - own`` of both parts. The arguments are those of ``abi.CROSS_ENTROPY``.
    """
    e = Emitter(isa, name, CROSS_ENTROPY)
    vocabulary = e.argument("vocabulary")

    def one_row(row: Value) -> None:
        start = e.mul(e.mul(row, vocabulary), 4)
        logits, by_logits = e.at(e.address("logits"), start), e.at(e.address("by_logits"), start)
        target = e.mul(e.load(e.address("targets"), e.mul(row, 8), I64), 4)
        own = e.load(logits, target, F32)

        def largest(place: Value, lanes: int, most: Value) -> Sequence[Value]:
            return [e.binary("maxnum", most, e.load(logits, e.mul(place, 4), vector(F32, lanes)))]

        lowest = e.const(vector(F32, e.isa.lanes), _LOWEST)
        vectors, single = e.sweep(vocabulary, largest, [lowest])
        most = e.binary("maxnum", e.reduce_max(vectors), e.reduce_max(single))

        def power(place: Value, lanes: int, total: Value) -> Sequence[Value]:
            offset = e.mul(place, 4)
            number = e.load(logits, offset, vector(F32, lanes))
            found = exp(e, e.b.fsub(number, e.broadcast(most, lanes)))
            e.store(found, by_logits, offset)
            return [e.b.fadd(total, found)]

        zeros = e.const(vector(F32, e.isa.lanes), 0.0)
        vectors, single = e.sweep(vocabulary, power, [zeros])
        total = e.b.fadd(e.reduce_sum(vectors), e.reduce_sum(single))
        share = e.b.fdiv(e.const(F32, 1.0), total)

        def scale(place: Value, lanes: int) -> None:
            offset = e.mul(place, 4)
            number = e.load(by_logits, offset, vector(F32, lanes))
            e.store(e.b.fmul(number, e.broadcast(share, lanes)), by_logits, offset)

        e.sweep(vocabulary, scale)
        likely = e.load(by_logits, target, F32)
        e.store(e.b.fsub(likely, e.const(F32, 1.0)), by_logits, target)
        parts = e.at(e.address("parts"), e.mul(row, 8))
        e.store(total, parts, 0)
        e.store(e.b.fsub(own, most), parts, 4)

    parallel_for(e, e.tokens, one_row)
    return e.finish()

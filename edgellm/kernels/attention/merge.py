"""The end of attention: shares of the keys become one result a query."""

from __future__ import annotations

from collections.abc import Sequence

from edgellm.kernels.attention.attention import LOWEST
from edgellm.kernels.codegen.abi import MERGE
from edgellm.kernels.codegen.emitter import F32, Emitter, Value, vector
from edgellm.kernels.codegen.exp import exp
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import next_places

_ITEM = 8
"""Queries that a thread takes at once."""


def emit_merge(isa: Isa, name: str) -> str:
    """Emit ``merge``: the splits' partial results of ``attention`` become one row a token.

    The arguments are those of ``abi.MERGE``.
    """
    e = Emitter(isa, name)
    partials, out, heads, width, splits = (
        e.address(MERGE["partials"]),
        e.address(MERGE["out"]),
        e.argument(MERGE["heads"]),
        e.argument(MERGE["head_dim"]),
        e.argument(MERGE["splits"]),
    )
    nbytes = e.mul(width, 4)
    row_bytes = e.add(nbytes, 8)

    def one(item: Value) -> None:
        rows, target = (
            e.at(partials, e.mul(item, e.mul(splits, row_bytes))),
            e.at(out, e.mul(item, nbytes)),
        )

        def ends(split: Value, place: int) -> Value:
            return e.load(
                rows, e.add(e.mul(split, row_bytes), e.add(nbytes, 4 * place)), vector(F32, 1)
            )

        low, zero = e.const(vector(F32, 1), LOWEST), e.const(vector(F32, 1), 0.0)
        [largest] = e.loop(
            0, splits, lambda split, so_far: [e.binary("maxnum", so_far, ends(split, 0))], [low]
        )

        def add_up(split: Value, so_far: Value) -> Sequence[Value]:
            weight = exp(e, e.b.fsub(ends(split, 0), largest))
            found = e.fma(weight, ends(split, 1), so_far)
            # in place of the largest score
            e.store(weight, rows, e.add(e.mul(split, row_bytes), nbytes))
            return [found]

        [total] = e.loop(0, splits, add_up, [zero])

        def some(at: Value, lanes: int) -> None:
            floats = vector(F32, lanes)

            def add(split: Value, so_far: Value) -> Sequence[Value]:
                found = e.load(rows, e.add(e.mul(split, row_bytes), e.mul(at, 4)), floats)
                return [
                    e.fma(found, e.shuffle(e.b.fdiv(ends(split, 0), total), [0] * lanes), so_far)
                ]

            [mixed] = e.loop(0, splits, add, [e.const(floats, 0.0)])
            e.store(mixed, target, e.mul(at, 4))

        e.sweep(width, some)

    next_places(e, e.mul(e.tokens, heads), _ITEM, one)
    return e.finish()

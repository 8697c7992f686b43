"""The end of attention: the splits of the keys become one result a query (flash decoding)."""

from __future__ import annotations

from collections.abc import Sequence

from edgellm.kernels.attention.online_softmax import LOWEST
from edgellm.kernels.codegen.abi import MERGE
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.exp import exp
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import parallel_for_chunks
from edgellm.kernels.codegen.values import F32, Value, vector

_ITEM_QUERIES = 8
"""Queries that a thread takes at once."""


def emit_merge(isa: Isa, name: str) -> str:
    """Emit ``merge``: partial results (L, H, splits, D + 2) become (L, H, D).

    With a split's largest score m_s, its sum z_s of e^(score - m_s), and its partial result o_s
    (the sum of e^(score - m_s) * value), and m the largest of all m_s:

        out = sum of e^(m_s - m) o_s  /  sum of e^(m_s - m) z_s

    The arguments are those of ``abi.MERGE``.
    """
    e = Emitter(isa, name, MERGE)
    partials = e.address("partials")
    out = e.address("out")
    heads = e.argument("heads")
    head_dim = e.argument("head_dim")
    splits = e.argument("splits")
    out_bytes = e.mul(head_dim, 4)
    partial_bytes = e.add(out_bytes, 8)  # o_s, then m_s and z_s
    one_float = vector(F32, 1)

    def merge_query(item: Value) -> None:
        rows = e.at(partials, e.mul(item, e.mul(splits, partial_bytes)))
        target = e.at(out, e.mul(item, out_bytes))

        def at_end(split: Value, place: int) -> Value:
            """Read m_s (place 0) or z_s (place 1)."""
            row = e.mul(split, partial_bytes)
            return e.load(rows, e.add(row, e.add(out_bytes, 4 * place)), one_float)

        def find_largest(split: Value, so_far: Value) -> Sequence[Value]:
            return [e.binary("maxnum", so_far, at_end(split, 0))]

        [largest] = e.loop(0, splits, find_largest, [e.const(one_float, LOWEST)])

        def sum_weights(split: Value, so_far: Value) -> Sequence[Value]:
            weight = exp(e, e.b.fsub(at_end(split, 0), largest))
            total = e.fma(weight, at_end(split, 1), so_far)
            # in place of the largest score, for the loop below
            e.store(weight, rows, e.add(e.mul(split, partial_bytes), out_bytes))
            return [total]

        [total] = e.loop(0, splits, sum_weights, [e.const(one_float, 0.0)])

        def mix_features(place: Value, lanes: int) -> None:
            floats = vector(F32, lanes)

            def add_split(split: Value, so_far: Value) -> Sequence[Value]:
                row = e.mul(split, partial_bytes)
                partial = e.load(rows, e.add(row, e.mul(place, 4)), floats)
                weight = e.b.fdiv(at_end(split, 0), total)
                return [e.fma(partial, e.shuffle(weight, [0] * lanes), so_far)]

            [mixed] = e.loop(0, splits, add_split, [e.const(floats, 0.0)])
            e.store(mixed, target, e.mul(place, 4))

        e.sweep(head_dim, mix_features)

    parallel_for_chunks(e, e.mul(e.tokens, heads), _ITEM_QUERIES, merge_query)
    return e.finish()

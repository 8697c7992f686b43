"""Rotary positions, and the way of new keys and values into the cache."""

from __future__ import annotations

from edgellm.kernels.attention.kv_unpack import pack_row
from edgellm.kernels.codegen.abi import ROPE
from edgellm.kernels.codegen.emitter import F32, Emitter, Value, vector
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import next_places
from edgellm.kernels.elementwise.rms_norm import normalize

_ITEM = 16
"""Heads that a thread takes at once."""


def emit_rope(isa: Isa, name: str, norm: str, kind: str = "f32") -> str:
    """Emit ``rope``: rotate queries in place, store rotated keys and plain values in the cache.

    Unless ``norm`` is ``plain``, queries and keys are normed first, with weights of that kind.
    The arguments are those of ``abi.ROPE``; the cache is of ``kind``.
    """
    e = Emitter(isa, name)
    heads, turns, width = (
        e.address(ROPE["qkv"]),
        e.address(ROPE["cos_sin"]),
        e.argument(ROPE["head_dim"]),
    )
    queries, groups = e.argument(ROPE["heads"]), e.argument(ROPE["kv_heads"])
    stores = e.address(ROPE["keys"]), e.address(ROPE["values"])
    head_bytes, place = e.argument(ROPE["head_bytes"]), e.argument(ROPE["position"])
    row_heads = e.add(queries, e.mul(groups, 2))
    nbytes, half = e.mul(width, 4), e.div(width, 2)

    def turn(source: Value, target: Value, token: Value) -> None:
        cosines = e.at(turns, e.mul(token, nbytes))

        def some(at: Value, lanes: int) -> None:
            floats = vector(F32, lanes)
            low, high = e.mul(at, 4), e.mul(e.add(at, half), 4)
            x, y = e.load(source, low, floats), e.load(source, high, floats)
            cosine, sine = e.load(cosines, low, floats), e.load(cosines, high, floats)
            e.store(e.b.fsub(e.b.fmul(x, cosine), e.b.fmul(y, sine)), target, low)
            e.store(e.fma(x, sine, e.b.fmul(y, cosine)), target, high)

        e.sweep(half, some)

    def pack(source: Value, places: list[Value], row: tuple[Value, Value]) -> None:
        pack_row(
            e, kind, source=source, places=(places[0], places[1], places[2]), row=row, width=width
        )

    def one(item: Value) -> None:
        token, head = e.div(item, row_heads), e.rem(item, row_heads)
        source = e.at(heads, e.mul(item, nbytes))
        is_query, is_value = e.less(head, queries), e.b.not_(e.less(head, e.add(queries, groups)))
        if norm != "plain":
            weight = e.b.select(
                is_query, e.address(ROPE["query_norm"]), e.address(ROPE["key_norm"])
            )
            e.when(
                e.b.not_(is_value),
                lambda: normalize(
                    e, (source, source), (weight, norm), width, e.argument(ROPE["eps"], F32)
                ),
            )
        number = e.rem(e.sub(head, queries), groups)
        if kind != "f32":
            e.when(e.b.not_(is_value), lambda: turn(source, source, token))
            places = [
                e.b.select(is_value, e.address(ROPE[of_values]), e.address(ROPE[of_keys]))
                for of_keys, of_values in (
                    ("keys", "values"),
                    ("key_scales", "value_scales"),
                    ("key_biases", "value_biases"),
                )
            ]
            row = e.mul(number, head_bytes), e.add(place, token)
            e.when(e.b.not_(is_query), lambda: pack(source, places, row))
            return
        cell = e.add(e.mul(number, head_bytes), e.mul(e.add(place, token), nbytes))
        target = e.b.select(
            is_query, source, e.at(e.b.select(is_value, stores[1], stores[0]), cell)
        )
        e.when(e.b.not_(is_value), lambda: turn(source, target, token))

        def copy(at: Value, lanes: int) -> None:
            e.store(e.load(source, e.mul(at, 4), vector(F32, lanes)), target, e.mul(at, 4))

        e.when(is_value, lambda: e.sweep(width, copy))

    next_places(e, e.mul(e.tokens, row_heads), _ITEM, one)
    return e.finish()

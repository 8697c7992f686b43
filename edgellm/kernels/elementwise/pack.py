"""Activations of many tokens, laid out for matrix products: tokens in the lanes of a vector."""

from __future__ import annotations

from llvmlite import ir

from edgellm.kernels.codegen.emitter import BFLOAT, F32, I16, I32, Emitter, Value, vector
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import next_items

_ITEM = 16
"""Vectors of words that a thread takes at once."""


def emit_pack(isa: Isa, name: str, kind: str) -> str:
    """Words (L, n) become (ceil(L / lanes), n, lanes): a word is four bytes, of one number, or of four codes.

    Arguments: 1 source (L, n words), 2 target, 3 n. Of the kind ``bf16`` the source is float32 (L,
        2n), and a word is two bfloat16. Lanes past the last token repeat it.
    """
    e = Emitter(isa, name)
    narrow = kind == "bf16"
    source, target, words = e.address(1), e.address(2), e.argument(3)
    lanes, last = isa.lanes, e.sub(e.tokens, 1)
    source_bytes = 8 if narrow else 4
    pieces = e.ceil_div(words, lanes * _ITEM)

    def read(row: Value, place: Value, count: int) -> Value:
        if not narrow:
            return e.load(row, e.mul(place, 4), vector(I32, count))
        floats = e.load(row, e.mul(place, 8), vector(F32, 2 * count))
        return e.b.bitcast(to_bf16(e, floats), vector(I32, count))

    def one(item: Value) -> None:
        block, piece = e.div(item, pieces), e.rem(item, pieces)
        first = e.mul(block, lanes)
        rows = [
            e.at(source, e.mul(e.min(e.add(first, lane), last), e.mul(words, source_bytes)))
            for lane in range(lanes)
        ]
        out = e.at(target, e.mul(e.mul(block, words), 4 * lanes))
        start = e.mul(piece, lanes * _ITEM)
        stop = e.min(e.add(start, lanes * _ITEM), words)
        whole = e.add(start, e.mul(e.div(e.sub(stop, start), lanes), lanes))

        def square(place: Value) -> None:
            for number, column in enumerate(
                e.transposed([read(row, place, lanes) for row in rows])
            ):
                e.store(column, out, e.mul(e.add(place, number), 4 * lanes))

        def single(place: Value) -> None:
            column = ir.Constant(vector(I32, lanes), ir.Undefined)
            for lane, row in enumerate(rows):
                word = e.b.extract_element(read(row, place, 1), e.const(I32, 0))
                column = e.b.insert_element(column, word, e.const(I32, lane))
            e.store(column, out, e.mul(place, 4 * lanes))

        e.loop(start, whole, square, step=lanes)
        e.loop(whole, stop, single)

    next_items(e, e.mul(e.ceil_div(e.tokens, lanes), pieces), one)
    return e.finish()


def to_bf16(e: Emitter, floats: Value) -> Value:
    """float32 lanes as bfloat16, rounded to the nearest (16-bit integers hold the bits)."""
    lanes = floats.type.count
    if e.isa.tiles:
        return e.b.bitcast(e.b.fptrunc(floats, vector(BFLOAT, lanes)), vector(I16, lanes))
    words = vector(I32, lanes)
    bits = e.b.bitcast(floats, words)
    odd = e.b.and_(e.b.lshr(bits, e.const(words, 16)), e.const(words, 1))
    rounded = e.b.add(bits, e.b.add(odd, e.const(words, 0x7FFF)))
    return e.b.trunc(e.b.lshr(rounded, e.const(words, 16)), vector(I16, lanes))

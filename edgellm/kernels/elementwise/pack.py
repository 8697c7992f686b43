"""Activations laid out for matrix products: tokens in the lanes of a vector."""

from __future__ import annotations

from llvmlite import ir

from edgellm.kernels.codegen.abi import PACK
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import parallel_for
from edgellm.kernels.codegen.unpack import to_bf16
from edgellm.kernels.codegen.values import F32, I32, Value, vector

_ITEM_VECTORS = 16
"""Vectors of words that a thread takes at once."""


def emit_pack(isa: Isa, name: str, kind: str) -> str:
    """Emit ``pack``: words (L, n) become (ceil(L / lanes), n, lanes).

    A word has 32 bits: one number or four codes; of the kind ``bf16``, two bfloat16 made of two
    float32. Lanes past the last token repeat it. The arguments are those of ``abi.PACK``.
    """
    e = Emitter(isa, name, PACK)
    lanes = isa.lanes
    source = e.address("source")
    target = e.address("target")
    words = e.argument("words")
    last_token = e.sub(e.tokens, 1)
    word_bytes = {"words": 4, "bf16": 8}[kind]  # in the source
    item_words = lanes * _ITEM_VECTORS
    items_per_block = e.ceil_div(words, item_words)

    def read_words(row: Value, place: Value, count: int) -> Value:
        if kind == "words":
            return e.load(row, e.mul(place, 4), vector(I32, count))
        floats = e.load(row, e.mul(place, 8), vector(F32, 2 * count))
        return e.b.bitcast(to_bf16(e, floats), vector(I32, count))

    def one_item(item: Value) -> None:
        block = e.div(item, items_per_block)  # of tokens
        part = e.rem(item, items_per_block)  # of words
        first_token = e.mul(block, lanes)
        rows = [
            e.at(
                source,
                e.mul(e.min(e.add(first_token, lane), last_token), e.mul(words, word_bytes)),
            )
            for lane in range(lanes)
        ]
        out = e.at(target, e.mul(e.mul(block, words), 4 * lanes))
        start = e.mul(part, item_words)
        stop = e.min(e.add(start, item_words), words)
        squares_end = e.add(start, e.round_down(e.sub(stop, start), lanes))

        def one_square(place: Value) -> None:
            """Turn (lanes tokens, lanes words) around."""
            columns = e.transpose([read_words(row, place, lanes) for row in rows])
            for number, column in enumerate(columns):
                e.store(column, out, e.mul(e.add(place, number), 4 * lanes))

        def one_word(place: Value) -> None:
            column = ir.Constant(vector(I32, lanes), ir.Undefined)
            for lane, row in enumerate(rows):
                word = e.b.extract_element(read_words(row, place, 1), e.const(I32, 0))
                column = e.b.insert_element(column, word, e.const(I32, lane))
            e.store(column, out, e.mul(place, 4 * lanes))

        e.loop(start, squares_end, one_square, step=lanes)
        e.loop(squares_end, stop, one_word)

    parallel_for(e, e.mul(e.ceil_div(e.tokens, lanes), items_per_block), one_item)
    return e.finish()

"""Activations as int8: per token and group a scale, chosen for every product."""

from __future__ import annotations

import struct

from edgellm.kernels.codegen.abi import QUANTIZE
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import parallel_for_chunks
from edgellm.kernels.codegen.values import F32, I8, I32, Value, vector

_LARGEST = 127.0
"""Codes are between -127 and 127: -128 would be further from zero than the largest number."""

[_TINY_BITS] = struct.unpack("<i", struct.pack("<f", 1e-30))
"""A group of zeros gets 1e-30 over 127 as its scale, so that nothing is divided by zero."""

_ITEM_GROUPS = 16
"""Groups that a thread takes at once."""

_TILE_CODES = 64
"""Codes of a row that a tile multiplies at once."""


def emit_quantize(isa: Isa, name: str, group: int, order: str) -> str:
    """Emit ``quantize``: rows become codes, a scale a group, and the sum of a group's codes.

    The arguments are those of ``abi.QUANTIZE``. The order of a row's codes is that in which the
    weight's bytes give theirs:

    - ``plain``: as they come.
    - ``split``: even places of the row, then odd ones. A byte of MLX's 4-bit codes has an even
      place in its low half and the next one in its high half, so that a vector of bytes becomes two
      vectors of codes by a mask and a shift.
    - ``tile``: the same within each 64 places (or a group of 32), which a tile takes at once.

    The sum is that of the codes times the scale, not of the exact numbers: then the rounding errors
    of ``scale * q`` and ``bias`` cancel as the weight itself does, which halves the error of 4-bit
    products.
    """
    e = Emitter(isa, name, QUANTIZE)
    x = e.address("x")
    codes = e.address("codes")
    scales = e.address("scales")
    sums = e.address("sums")
    groups = e.argument("groups")
    lanes = isa.lanes
    floats = vector(F32, lanes)
    tokens = e.tokens

    def one_group(item: Value) -> None:
        source = e.mul(item, 4 * group)
        # (group,) float32 in several vectors
        numbers = [e.load(x, e.add(source, 4 * start), floats) for start in range(0, group, lanes)]
        # Magnitudes in float32 are in the order of their bits as whole numbers, and there infinity
        # and NaN are above all others: a group that holds one gets it as its scale.
        words = vector(I32, lanes)
        magnitudes = e.const(words, _TINY_BITS)
        for number in numbers:
            magnitude = e.b.bitcast(e.unary("fabs", number), words)
            magnitudes = e.call(f"llvm.smax.v{lanes}i32", words, [magnitudes, magnitude])
        largest_bits = e.call(f"llvm.vector.reduce.smax.v{lanes}i32", I32, [magnitudes])
        largest = e.b.bitcast(largest_bits, F32)
        scale = e.b.fdiv(largest, e.const(F32, _LARGEST))
        inverse = e.broadcast(e.b.fdiv(e.const(F32, _LARGEST), largest), lanes)
        rounded = [
            e.b.fptosi(e.unary("rint", e.b.fmul(number, inverse)), vector(I32, lanes))
            for number in numbers
        ]
        total = rounded[0]
        for number in rounded[1:]:
            total = e.b.add(total, number)
        e.store(scale, scales, e.mul(item, 4), align=4)
        scaled_sum = e.b.fmul(scale, e.b.sitofp(e.reduce_sum(total), F32))
        e.store(scaled_sum, sums, e.mul(item, 4), align=4)

        # (group,) bytes
        row_codes = e.concat([e.b.trunc(number, vector(I8, lanes)) for number in rounded])
        if order == "split":
            store_split(item, row_codes)
            return
        if order == "tile":
            row_codes = e.shuffle(row_codes, _tile_order(group))
        e.store(row_codes, codes, e.mul(item, group))

    def store_split(item: Value, row_codes: Value) -> None:
        # even places of all groups fill the row's first half, odd ones its second
        row = e.div(item, groups)
        place = e.rem(item, groups)
        even = e.add(e.mul(row, e.mul(groups, group)), e.mul(place, group // 2))
        half_row = e.mul(groups, group // 2)
        e.store(e.shuffle(row_codes, range(0, group, 2)), codes, even)
        e.store(e.shuffle(row_codes, range(1, group, 2)), codes, e.add(even, half_row))

    parallel_for_chunks(e, e.mul(tokens, groups), _ITEM_GROUPS, one_group)
    return e.finish()


def _tile_order(group: int) -> list[int]:
    """Return the places of a group as tiles take them: 0 2 4 ... 62 1 3 5 ... 63 64 66 ..."""
    width = min(_TILE_CODES, group)
    order: list[int] = []
    for start in range(0, group, width):
        order += range(start, start + width, 2)
        order += range(start + 1, start + width, 2)
    return order

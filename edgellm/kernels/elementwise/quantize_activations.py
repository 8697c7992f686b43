"""Activations as int8: per token and group a scale and codes between -127 and 127, chosen anew for every product."""

from __future__ import annotations

from edgellm.kernels.codegen.emitter import F32, I8, I32, Emitter, Value, vector
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import next_places

_LARGEST = 127.0
_TINY = 1e-30
"""A group of zeros gets this scale, so that nothing is divided by zero."""


_ITEM = 16
"""Groups that a thread takes at once."""


def emit_quantize(isa: Isa, name: str, group: int, order: str) -> str:
    """Rows of float32 become codes, a scale a group, and the sum of a group's codes times its scale.

    Arguments: 1 rows (L, K) float32, 2 codes (L, K) int8, 3 scales (L, K/group), 4 sums (L,
        K/group), 5 groups a row. The order ``split`` puts a row's even places before its odd ones,
        as the halves of MLX's 4-bit bytes lie; ``tile`` does so within each 64 places (or a group
        of 32).

    The sum is that of the codes, not of the exact numbers: then the rounding errors of ``scale *
    q`` and ``bias`` cancel as the weight itself does, which halves the error of 4-bit products.
    """
    e = Emitter(isa, name)
    rows, codes, scales, sums = (e.address(number) for number in range(1, 5))
    groups = e.argument(5)
    lanes = isa.lanes
    floats = vector(F32, lanes)
    count = e.tokens

    def one(item: Value) -> None:
        source = e.mul(item, 4 * group)
        numbers = [
            e.load(rows, e.add(source, 4 * start), floats) for start in range(0, group, lanes)
        ]
        top = e.const(floats, 0.0)
        for number in numbers:
            top = e.binary("maxnum", top, e.unary("fabs", number))
        largest = e.binary("maxnum", e.largest(top), e.const(F32, _TINY))
        scale = e.b.fdiv(largest, e.const(F32, _LARGEST))
        inverse = e.spread(e.b.fdiv(e.const(F32, _LARGEST), largest), lanes)
        whole = [
            e.b.fptosi(e.unary("rint", e.b.fmul(number, inverse)), vector(I32, lanes))
            for number in numbers
        ]
        total = whole[0]
        for number in whole[1:]:
            total = e.b.add(total, number)
        e.store(scale, scales, e.mul(item, 4), align=4)
        e.store(e.b.fmul(scale, e.b.sitofp(e.sum(total), F32)), sums, e.mul(item, 4), align=4)
        narrow = e.join([e.b.trunc(number, vector(I8, lanes)) for number in whole])
        if order == "tile":
            width = min(64, group)
            starts = [start + odd for start in range(0, group, width) for odd in (0, 1)]
            narrow = e.shuffle(
                narrow,
                [
                    place
                    for start in starts
                    for place in range(start, start // width * width + width, 2)
                ],
            )
        if order != "split":
            e.store(narrow, codes, e.mul(item, group))
            return
        row, place = e.div(item, groups), e.rem(item, groups)
        base = e.add(e.mul(row, e.mul(groups, group)), e.mul(place, group // 2))
        half = e.mul(groups, group // 2)
        e.store(e.shuffle(narrow, range(0, group, 2)), codes, base)
        e.store(e.shuffle(narrow, range(1, group, 2)), codes, e.add(base, half))

    next_places(e, e.mul(count, groups), _ITEM, one)
    return e.finish()

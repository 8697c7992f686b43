"""Rotary positions of many sequences' heads, there and back (Su et al. 2021).

The method: arXiv:2104.09864.
"""

from __future__ import annotations

from edgellm.kernels.codegen.abi import ROTATE
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import parallel_for_chunks
from edgellm.kernels.codegen.values import F32, Value, vector

_ITEM_HEADS = 32
"""Heads that a thread takes at once."""


def emit_rotate(isa: Isa, name: str, direction: str) -> str:
    """Emit ``rotate``: turn heads by their position, ``there`` or ``back``, and copy the others.

    The arguments are those of ``abi.ROTATE``.
    """
    e = Emitter(isa, name, ROTATE)
    source, target = e.address("source"), e.address("target")
    cos_sin = e.address("cos_sin")
    heads, rotated = e.argument("heads"), e.argument("rotated")
    head_dim, rotary_dim = e.argument("head_dim"), e.argument("rotary_dim")
    half = e.div(rotary_dim, 2)

    def one_head(item: Value) -> None:
        start = e.mul(e.mul(item, head_dim), 4)
        head, turned = e.at(source, start), e.at(target, start)
        angles = e.at(cos_sin, e.mul(e.mul(e.div(item, heads), rotary_dim), 4))
        is_rotated = e.less(e.rem(item, heads), rotated)

        def rotate_pairs(place: Value, lanes: int) -> None:
            floats = vector(F32, lanes)
            first, second = e.mul(place, 4), e.mul(e.add(place, half), 4)
            x, y = e.load(head, first, floats), e.load(head, second, floats)
            cosine, sine = e.load(angles, first, floats), e.load(angles, second, floats)
            if direction == "back":
                sine = e.b.fneg(sine)
            e.store(e.b.fsub(e.b.fmul(x, cosine), e.b.fmul(y, sine)), turned, first)
            e.store(e.fma(x, sine, e.b.fmul(y, cosine)), turned, second)

        e.sweep(e.b.select(is_rotated, half, e.index(0)), rotate_pairs)
        # what is behind the rotated features, or all of a head
        begin = e.b.select(is_rotated, e.mul(half, 2), e.index(0))

        def copy(place: Value, lanes: int) -> None:
            offset = e.mul(e.add(begin, place), 4)
            e.store(e.load(head, offset, vector(F32, lanes)), turned, offset)

        e.sweep(e.sub(head_dim, begin), copy)

    parallel_for_chunks(e, e.mul(e.tokens, heads), _ITEM_HEADS, one_head)
    return e.finish()

"""Rows of a weight matrix quantized to the bytes that ``mx.quantize`` gives."""

from __future__ import annotations

from llvmlite import ir

from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.unpack import load_floats, to_bf16, to_f16
from edgellm.kernels.codegen.values import F32, I8, I32, I64, POINTER, Value, vector
from edgellm.kernels.codegen.weight_format import ITEM_BYTES, WeightFormat

_LEAST_SCALE = 1e-7
"""MLX's: a group of equal numbers has a scale, too."""

_ROUNDER = 2.0**23
"""Beside it a float32's last digit is 1: a sum has a code, rounded to even, in its lowest bits."""

_CHUNK = 64
"""Codes that are packed at once."""


def emit_quantize_weights(isa: Isa, name: str, kind: str, weight_format: WeightFormat) -> str:
    """Emit ``void quantize_weights(source, codes, scales, biases, groups, largest)``.

    Each group of numbers of ``kind`` becomes packed codes, a scale and a bias of a weight's format,
    as by MLX in float32: the end of the range that is further from zero is a code exactly, so a
    zero is one too. Codes of 8 bits are taken with the scale and bias as they are stored.

    The word at ``largest`` gets the bits of the largest magnitude in float32, which are those of
    infinity, or above, where a number is infinite or NaN.
    """
    bits, group = weight_format.bits, weight_format.group
    arguments = [POINTER, POINTER, POINTER, POINTER, I64, POINTER]
    e = Emitter(isa, name, arguments=arguments)
    source, codes, scales, biases, groups, largest = e.arguments
    lanes = isa.lanes
    floats, words = vector(F32, lanes), vector(I32, lanes)
    last_code = float((1 << bits) - 1)

    def one_group(place: Value, magnitudes: Value) -> list[Value]:
        start = e.mul(place, group * ITEM_BYTES[kind])
        numbers = [
            load_floats(e, source, e.add(start, first * ITEM_BYTES[kind]), kind, lanes)
            for first in range(0, group, lanes)
        ]
        for number in numbers:
            magnitude = e.b.and_(e.b.bitcast(number, words), e.const(words, 0x7FFFFFFF))
            magnitudes = e.call(f"llvm.smax.v{lanes}i32", words, [magnitudes, magnitude])
        scale, bias = _scale_and_bias(e, numbers, last_code)
        stored_scale = _store(e, scale, weight_format.kind, scales, place)
        stored_bias = _store(e, bias, weight_format.kind, biases, place)
        if bits == 8:
            scale, bias = stored_scale, stored_bias
        wide_scale, wide_bias = (e.broadcast(value, lanes) for value in (scale, bias))
        levels = []
        for number in numbers:
            level = e.b.fdiv(e.b.fsub(number, wide_bias), wide_scale)
            level = _clipped(e, level, e.const(floats, last_code))
            whole = e.b.bitcast(e.b.fadd(level, e.const(floats, _ROUNDER)), words)
            levels.append(e.b.trunc(whole, vector(I8, lanes)))
        width = min(group, _CHUNK)
        for first in range(0, group, width):
            chunk = e.concat(levels[first // lanes : (first + width) // lanes])
            target = e.add(e.mul(place, group * bits // 8), first * bits // 8)
            _pack(e, chunk, bits, e.at(codes, target))
        return [magnitudes]

    [magnitudes] = e.loop(0, groups, one_group, [e.const(words, 0)])
    most = e.call(f"llvm.vector.reduce.smax.v{lanes}i32", I32, [magnitudes])
    e.store(most, largest, 0, align=4)
    return e.finish()


def _scale_and_bias(e: Emitter, numbers: list[Value], last_code: float) -> tuple[Value, Value]:
    """Return the scale and the bias of a group in float32, by MLX's arithmetic."""
    low, high = _ends(e, numbers)
    # of two zeros either may come out here: nothing below depends on a zero's sign
    is_low = e.b.fcmp_ordered(">", e.unary("fabs", low), e.unary("fabs", high))
    step = e.b.fdiv(e.b.fsub(high, low), e.const(F32, last_code))
    least = e.const(F32, _LEAST_SCALE)
    step = e.b.select(e.b.fcmp_ordered("<", step, least), least, step)
    step = e.b.select(is_low, step, e.b.fneg(step))
    edge = e.b.select(is_low, low, high)
    edge_code = e.unary("rint", e.b.fdiv(edge, step))
    has_code = e.b.fcmp_unordered("!=", edge_code, e.const(F32, 0.0))
    scale = e.b.select(has_code, e.b.fdiv(edge, edge_code), step)
    return scale, e.b.select(has_code, edge, e.const(F32, 0.0))


def _ends(e: Emitter, numbers: list[Value]) -> tuple[Value, Value]:
    """Return the smallest and the largest number."""
    low, high = numbers[0], numbers[0]
    for number in numbers[1:]:
        low = e.b.select(e.b.fcmp_ordered("<", number, low), number, low)
        high = e.b.select(e.b.fcmp_ordered(">", number, high), number, high)
    suffix = f"v{low.type.count}f32"
    return (
        e.call(f"llvm.vector.reduce.fmin.{suffix}", F32, [low], fastmath=("nnan",)),
        e.call(f"llvm.vector.reduce.fmax.{suffix}", F32, [high], fastmath=("nnan",)),
    )


def _store(e: Emitter, number: Value, kind: str, table: Value, place: Value) -> Value:
    """Write a number of a kind into a table; return it as it is stored, in float32."""
    lane = e.broadcast(number, 1)
    if kind == "f16":
        lane = to_f16(e, lane)
    elif kind == "bf16":
        lane = to_bf16(e, lane)
    offset = e.mul(place, ITEM_BYTES[kind])
    e.store(lane, table, offset)
    wide = load_floats(e, table, offset, kind, 1)
    return e.b.extract_element(wide, ir.Constant(I32, 0))


def _clipped(e: Emitter, level: Value, last_code: Value) -> Value:
    """Return a level between the first code and the last; NaN becomes the first."""
    zero = e.const(level.type, 0.0)
    level = e.b.select(e.b.fcmp_ordered(">", level, zero), level, zero)
    return e.b.select(e.b.fcmp_ordered("<", level, last_code), level, last_code)


def _pack(e: Emitter, codes: Value, bits: int, target: Value) -> None:
    """Write codes, a byte each, without their upper bits, the first one lowest."""
    width, lane_bits = bits, 8
    while width % 8 or (width > 8 and lane_bits < 64):
        # neighbours move together: two fields of a lane that is twice as wide become one
        lane = ir.IntType(2 * lane_bits)
        pairs = vector(lane, codes.type.count // 2)
        codes = e.b.bitcast(codes, pairs)
        upper = e.b.lshr(codes, e.const(pairs, lane_bits - width))
        low_mask, mask = (1 << width) - 1, (1 << 2 * width) - 1
        low = e.b.and_(codes, e.const(pairs, low_mask))
        codes = e.b.or_(low, e.b.and_(upper, e.const(pairs, mask ^ low_mask)))
        width, lane_bits = 2 * width, 2 * lane_bits
    if width == 8:
        if lane_bits > 8:
            codes = e.b.trunc(codes, vector(I8, codes.type.count))
        e.store(codes, target, 0)
        return
    for lane in range(codes.type.count):
        packed = e.b.extract_element(codes, ir.Constant(I32, lane))
        e.store(e.b.trunc(packed, ir.IntType(width)), target, lane * width // 8)

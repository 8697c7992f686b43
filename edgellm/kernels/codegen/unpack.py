"""Numbers and packed codes in memory become lanes of a vector; float32 becomes 16 bits."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.values import BFLOAT, F16, F32, I8, I16, I32, I64, Value, vector


def load_floats(e: Emitter, base: Value, offset: int | Value, kind: str, lanes: int) -> Value:
    """Read ``lanes`` numbers of a kind (``f16``, ``bf16``, ``f32``) as float32."""
    if kind == "f32":
        return e.load(base, offset, vector(F32, lanes))
    if kind == "bf16":
        return _bf16_to_f32(e, e.load(base, offset, vector(I16, lanes)))
    if e.isa.half:
        return e.b.fpext(e.load(base, offset, vector(F16, lanes)), vector(F32, lanes))
    return _f16_to_f32(e, e.load(base, offset, vector(I16, lanes)))


def load_rows(e: Emitter, bases: Sequence[Value], offset: Value, kind: str, lanes: int) -> Value:
    """Read ``lanes`` numbers from the same place of several rows, end to end, as float32."""
    if kind == "f16" and e.isa.half:
        halves = e.concat([e.load(base, offset, vector(F16, lanes)) for base in bases])
        return e.b.fpext(halves, vector(F32, halves.type.count))
    if kind == "bf16":
        return _bf16_to_f32(
            e, e.concat([e.load(base, offset, vector(I16, lanes)) for base in bases])
        )
    return e.concat([load_floats(e, base, offset, kind, lanes) for base in bases])


def load_float(e: Emitter, base: Value, offset: int | Value, kind: str) -> Value:
    """Read one number of a kind as float32."""
    return e.b.extract_element(load_floats(e, base, offset, kind, 1), ir.Constant(I32, 0))


def _bf16_to_f32(e: Emitter, numbers: Value) -> Value:
    """Return bfloat16 (16-bit integers hold the bits) as float32, of which it is the upper half."""
    words = vector(I32, numbers.type.count)
    wide = e.b.shl(e.b.zext(numbers, words), e.const(words, 16))
    return e.b.bitcast(wide, vector(F32, numbers.type.count))


def _f16_to_f32(e: Emitter, numbers: Value) -> Value:
    """Return float16 as float32 by integer arithmetic.

    float16: sign, 5 bits of exponent plus 15, 10 of fraction; float32: 8 bits plus 127, 23.
    """
    lanes = numbers.type.count
    words = vector(I32, lanes)
    floats = vector(F32, lanes)
    wide = e.b.zext(numbers, words)
    sign = e.b.shl(e.b.and_(wide, e.const(words, 0x8000)), e.const(words, 16))
    magnitude = e.b.shl(e.b.and_(wide, e.const(words, 0x7FFF)), e.const(words, 13))
    # 127 - 15 is missing from the exponent; a product also mends numbers that have no exponent
    scaled = e.b.fmul(e.b.bitcast(magnitude, floats), e.const(floats, 2.0**112))
    return e.b.bitcast(e.b.or_(e.b.bitcast(scaled, words), sign), floats)


def f16_pairs(e: Emitter, pairs: Value) -> tuple[Value, Value]:
    """Return two float16 numbers of each 32-bit lane as float32: the lower ones, the upper ones.

    As in ``_f16_to_f32``, the exponent's missing part comes with a product.
    """
    words = pairs.type
    floats = vector(F32, words.count)

    def upper(halves: Value) -> Value:
        # sign, 3 copies of it, then float16's exponent and fraction
        moved = e.b.ashr(halves, e.const(words, 3))
        number = e.b.and_(moved, e.const(words, 0x8FFFE000))
        return e.b.fmul(e.b.bitcast(number, floats), e.const(floats, 2.0**112))

    return upper(e.b.shl(pairs, e.const(words, 16))), upper(pairs)


def to_f16(e: Emitter, numbers: Value) -> Value:
    """Return float32 lanes as float16, rounded to the nearest."""
    lanes = numbers.type.count
    if e.isa.half:
        return e.b.fptrunc(numbers, vector(F16, lanes))
    words = vector(I32, lanes)
    floats = vector(F32, lanes)
    word = e.b.bitcast(numbers, words)
    sign = e.b.lshr(e.b.and_(word, e.const(words, 0x80000000)), e.const(words, 16))
    magnitude = e.b.and_(word, e.const(words, 0x7FFFFFFF))
    # Beside 0.5 a float32's last digit is float16's smallest number, so adding 0.5 rounds those
    # that have no exponent left.
    small = e.b.fadd(e.b.bitcast(magnitude, floats), e.const(floats, 0.5))
    small = e.b.sub(e.b.bitcast(small, words), e.const(words, 0x3F000000))
    # Others lose 13 bits of fraction: half of that less one, and the last bit that stays, make
    # ties go to even.
    odd = e.b.and_(e.b.lshr(magnitude, e.const(words, 13)), e.const(words, 1))
    nudged = e.b.add(e.b.add(magnitude, odd), e.const(words, 0xFFF))
    usual = e.b.sub(nudged, e.const(words, (127 - 15) << 23))
    usual = e.b.lshr(usual, e.const(words, 13))
    has_exponent = 113 << 23  # 2^-14
    too_large = 0x477FF000  # 65520, which rounds to infinity (0x7C00)
    half = e.b.select(e.b.icmp_unsigned("<", magnitude, e.const(words, has_exponent)), small, usual)
    finite = e.b.icmp_unsigned("<", magnitude, e.const(words, too_large))
    half = e.b.select(finite, half, e.const(words, 0x7C00))
    return e.b.trunc(e.b.or_(half, sign), vector(I16, lanes))


def to_bf16(e: Emitter, numbers: Value) -> Value:
    """Return float32 lanes as bfloat16, rounded to the nearest; 16-bit integers hold the bits."""
    lanes = numbers.type.count
    if e.isa.tiles or e.isa.pairs:
        return e.b.bitcast(e.b.fptrunc(numbers, vector(BFLOAT, lanes)), vector(I16, lanes))
    words = vector(I32, lanes)
    bits = e.b.bitcast(numbers, words)
    # the upper half; ties go to even
    odd = e.b.and_(e.b.lshr(bits, e.const(words, 16)), e.const(words, 1))
    rounded = e.b.add(bits, e.b.add(odd, e.const(words, 0x7FFF)))
    return e.b.trunc(e.b.lshr(rounded, e.const(words, 16)), vector(I16, lanes))


def load_codes(e: Emitter, base: Value, offset: Value, bits: int, count: int) -> Value:
    """Read ``count`` codes from byte ``offset`` on, as (count,) 32-bit integers.

    The count is a multiple of 8. Eight codes are ``bits`` bytes, the first in the lowest bits, read
    as one integer of just that width: nothing behind the row is touched.
    """
    if bits == 8:
        return e.b.zext(e.load(base, offset, vector(I8, count)), vector(I32, count))
    word = I32
    if bits > 4:
        word = I64
    words = vector(word, 8)
    shifts = e.const_lanes(word, [bits * place for place in range(8)])
    parts = []
    for start in range(count // 8):
        packed = e.load(base, e.add(offset, start * bits), ir.IntType(8 * bits))
        if packed.type != word:
            packed = e.b.zext(packed, word)
        # the eight codes' word in each lane, shifted until the lane's code is lowest
        fields = e.b.and_(e.b.lshr(e.broadcast(packed, 8), shifts), e.const(words, (1 << bits) - 1))
        if word is I64:
            fields = e.b.trunc(fields, vector(I32, 8))
        parts.append(fields)
    return e.concat(parts)

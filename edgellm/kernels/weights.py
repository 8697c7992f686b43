"""How a weight is stored, and how its bytes become numbers in registers."""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.errors import BackendError
from edgellm.kernels.emitter import F16, F32, I8, I16, I32, I64, Emitter, Value, ir, vector

ITEM_BYTES = {"f16": 2, "bf16": 2, "f32": 4}
BITS = (2, 3, 4, 5, 6, 8)
GROUPS = (32, 64, 128)


@dataclass(frozen=True, slots=True)
class Format:
    """A weight's form: MLX's affine codes (w = scale * q + bias a group), or plain numbers.

    Attributes:
        bits: of a code; 0 for plain numbers.
        group: weights that share scale and bias; 0 for plain numbers.
        kind: of scales and biases, or of the plain numbers: ``f16``, ``bf16`` or ``f32``.
    """

    bits: int
    group: int
    kind: str

    def __post_init__(self) -> None:
        """Check that there are kernels for it."""
        dense = (self.bits, self.group) == (0, 0)
        if self.kind not in ITEM_BYTES or not (dense or (self.bits in BITS and self.group in GROUPS)):
            raise BackendError(f"there are no kernels for {self.bits} bits in groups of {self.group} with {self.kind} scales")

    @property
    def dense(self) -> bool:
        """Whether these are plain numbers."""
        return self.bits == 0

    @property
    def item_bytes(self) -> int:
        """Bytes of a scale, or of a plain number."""
        return ITEM_BYTES[self.kind]

    def row_bytes(self, columns: int) -> int:
        """Bytes of a row's codes or numbers."""
        return columns * self.item_bytes if self.dense else columns * self.bits // 8


def load_floats(e: Emitter, base: Value, offset: int | Value, kind: str, lanes: int) -> Value:
    """``lanes`` numbers of a kind as float32."""
    if kind == "f32":
        return e.load(base, offset, vector(F32, lanes))
    if kind == "bf16":
        return widened_bf16(e, e.load(base, offset, vector(I16, lanes)))
    if e.isa.half:
        return e.b.fpext(e.load(base, offset, vector(F16, lanes)), vector(F32, lanes))
    return _widened_f16(e, e.load(base, offset, vector(I16, lanes)))


def load_float(e: Emitter, base: Value, offset: int | Value, kind: str) -> Value:
    """One number of a kind as float32."""
    return e.b.extract_element(load_floats(e, base, offset, kind, 1), ir.Constant(I32, 0))


def widened_bf16(e: Emitter, numbers: Value) -> Value:
    """bfloat16 is the upper half of a float32."""
    words = vector(I32, numbers.type.count)
    wide = e.b.shl(e.b.zext(numbers, words), e.const(words, 16))
    return e.b.bitcast(wide, vector(F32, numbers.type.count))


def _widened_f16(e: Emitter, numbers: Value) -> Value:
    """float16 by integer arithmetic: exponent and fraction move into place, and 2^112 mends the exponent's bias."""
    lanes = numbers.type.count
    words, floats = vector(I32, lanes), vector(F32, lanes)
    wide = e.b.zext(numbers, words)
    sign = e.b.shl(e.b.and_(wide, e.const(words, 0x8000)), e.const(words, 16))
    rest = e.b.shl(e.b.and_(wide, e.const(words, 0x7FFF)), e.const(words, 13))
    scaled = e.b.fmul(e.b.bitcast(rest, floats), e.const(floats, 2.0**112))
    return e.b.bitcast(e.b.or_(e.b.bitcast(scaled, words), sign), floats)


def codes(e: Emitter, base: Value, offset: Value, bits: int, count: int) -> Value:
    """``count`` codes (a multiple of 8) from byte ``offset`` on, as 32-bit integers in their order.

    Eight codes are ``bits`` bytes, read as one integer of just that width: nothing behind the row is touched.
    """
    if bits == 8:
        return e.b.zext(e.load(base, offset, vector(I8, count)), vector(I32, count))
    lanes = vector(I64 if bits > 4 else I32, 8)
    shifts = e.lanes(lanes.element, [bits * place for place in range(8)])
    parts = []
    for start in range(count // 8):
        packed = e.load(base, e.add(offset, start * bits), ir.IntType(8 * bits))
        word = packed if packed.type == lanes.element else e.b.zext(packed, lanes.element)
        fields = e.b.and_(e.b.lshr(e.spread(word, 8), shifts), e.const(lanes, (1 << bits) - 1))
        parts.append(fields if lanes.element == I32 else e.b.trunc(fields, vector(I32, 8)))
    return e.join(parts)

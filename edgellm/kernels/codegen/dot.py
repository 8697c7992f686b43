"""Products of bytes: four at a time, added to a 32-bit lane, by whatever instruction the processor has."""

from __future__ import annotations

from edgellm.kernels.codegen.emitter import I8, I16, I32, Emitter, Value, vector


def signed_weights(e: Emitter, bits: int) -> bool:
    """Whether 8-bit codes are taken as q - 128: where bytes times bytes are signed, or pairs of products would overflow."""
    return bits == 8 and e.isa.dot != "vpdpbusd"


def as_weights(e: Emitter, codes: Value, bits: int) -> Value:
    """Codes in the form that ``dot`` takes."""
    return e.b.xor(codes, e.const(codes.type, -128)) if signed_weights(e, bits) else codes


def dot(e: Emitter, total: Value, weights: Value, activations: Value, bits: int) -> Value:
    """``total`` (i32 lanes) plus, a lane, the sum of four weights times four int8 activations.

    Args:
        e: the function.
        total: 32-bit lanes.
        weights: four times as many bytes, from ``as_weights``.
        activations: as many signed bytes between -127 and 127.
        bits: of a code, 4 or 8.
    """
    lanes = total.type.count
    native = 4 if e.isa.dot == "sdot" else min(lanes, e.isa.lanes)
    parts = []
    for start in range(0, lanes, native):
        piece = e.part(total, start, native)
        left, right = (e.part(x, 4 * start, 4 * native) for x in (weights, activations))
        parts.append(_native(e, piece, left, right, bits))
    return e.join(parts)


def _native(e: Emitter, total: Value, weights: Value, activations: Value, bits: int) -> Value:
    lanes = total.type.count
    if e.isa.dot == "vpdpbusd":
        return e.call(
            f"llvm.x86.avx512.vpdpbusd.{32 * lanes}", total.type, [total, weights, activations]
        )
    if e.isa.dot == "sdot":
        return e.call(
            "llvm.aarch64.neon.sdot.v4i32.v16i8", total.type, [total, weights, activations]
        )
    if bits == 8:
        # unsigned times signed saturates at 16 bits: |w| <= 128 times 127, twice, still fits
        bytes_ = vector(I8, 4 * lanes)
        sign = "llvm.x86.avx2.psign.b" if lanes == 8 else "llvm.x86.ssse3.psign.b.128"
        activations = e.call(sign, bytes_, [activations, weights])
        weights = e.call(f"llvm.abs.v{4 * lanes}i8", bytes_, [weights, e.const_bit(False)])
    width = "avx2.pmadd.ub.sw" if lanes == 8 else "ssse3.pmadd.ub.sw.128"
    pairs = e.call(f"llvm.x86.{width}", vector(I16, 2 * lanes), [weights, activations])
    width = "avx2.pmadd.wd" if lanes == 8 else "sse2.pmadd.wd"
    fours = e.call(
        f"llvm.x86.{width}", vector(I32, lanes), [pairs, e.const(vector(I16, 2 * lanes), 1)]
    )
    return e.b.add(total, fours)

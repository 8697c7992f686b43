"""Products of bytes, four to a 32-bit lane, by whatever instruction the processor has."""

from __future__ import annotations

from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.values import I8, I16, I32, Value, vector


def signed_weights(e: Emitter, bits: int) -> bool:
    """Return whether 8-bit codes are taken as q - 128, between -128 and 127.

    So it is where bytes times bytes are signed (sdot), or pairs of products would overflow
    (pmaddubsw). A group's bias then has to be 128 scales larger.
    """
    return bits == 8 and e.isa.dot != "vpdpbusd"


def as_weights(e: Emitter, codes: Value, bits: int) -> Value:
    """Return codes as ``dot`` takes them."""
    if signed_weights(e, bits):
        return e.b.xor(codes, e.const(codes.type, -128))  # q - 128 in eight bits
    return codes


def dot(e: Emitter, total: Value, weights: Value, activations: Value, bits: int) -> Value:
    """Return ``total`` plus, a lane, the sum of four weights times four activations.

    Args:
        e: the kernel.
        total: (n,) 32-bit integers.
        weights: (4n,) bytes, from ``as_weights``.
        activations: (4n,) signed bytes between -127 and 127.
        bits: bits per code, 4 or 8.
    """
    lanes = total.type.count
    native_lanes = min(lanes, e.isa.lanes)
    if e.isa.dot == "sdot":
        native_lanes = 4
    parts = []
    for start in range(0, lanes, native_lanes):
        sums = e.part(total, start, native_lanes)
        left = e.part(weights, 4 * start, 4 * native_lanes)
        right = e.part(activations, 4 * start, 4 * native_lanes)
        parts.append(_native_dot(e, sums, left, right, bits))
    return e.concat(parts)


def _native_dot(e: Emitter, total: Value, weights: Value, activations: Value, bits: int) -> Value:
    """Return the same for as many lanes as an instruction has."""
    lanes = total.type.count
    if e.isa.dot == "vpdpbusd":
        name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
        return e.call(name, total.type, [total, weights, activations])
    if e.isa.dot == "sdot":
        name = "llvm.aarch64.neon.sdot.v4i32.v16i8"
        return e.call(name, total.type, [total, weights, activations])
    sign, multiply_bytes, add_pairs = _PMADDUBSW[lanes]
    if bits == 8:
        # unsigned times signed saturates at 16 bits: |w| <= 128 times 127, twice, still fits
        byte_lanes = vector(I8, 4 * lanes)
        activations = e.call(sign, byte_lanes, [activations, weights])
        weights = e.call(f"llvm.abs.v{4 * lanes}i8", byte_lanes, [weights, e.const_bit(False)])
    pairs = e.call(multiply_bytes, vector(I16, 2 * lanes), [weights, activations])
    ones = e.const(pairs.type, 1)
    return e.b.add(total, e.call(add_pairs, vector(I32, lanes), [pairs, ones]))


_PMADDUBSW = {
    8: ("llvm.x86.avx2.psign.b", "llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd"),
    4: ("llvm.x86.ssse3.psign.b.128", "llvm.x86.ssse3.pmadd.ub.sw.128", "llvm.x86.sse2.pmadd.wd"),
}
"""By lanes: negate by a sign, add pairs of products of bytes, add pairs of 16-bit numbers."""

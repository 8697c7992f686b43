"""Keys and values as a cache stores them: float32, float16, or codes of 8 or 4 bits.

Codes are MLX's affine ones: a row has its features in groups of 32, the last filled up with zeros;
each group has a scale and a bias in float16, and a number is ``scale * code + bias``. Finite
numbers beyond float16 are stored as its largest; what is infinite or NaN stays so, to show where a
model is damaged.
"""

# G key/value heads, D head size, n groups of a row: ceil(D / 32)

from __future__ import annotations

import math
from typing import NamedTuple

from edgellm.kernels.codegen.abi import KV_GROUP, padded_features
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.exp import ROUNDER
from edgellm.kernels.codegen.unpack import load_codes, load_float, to_f16
from edgellm.kernels.codegen.values import F32, I8, I32, Value, vector
from edgellm.kernels.codegen.weight_format import ITEM_BYTES

BITS = {"q8": 8, "q4": 4}

_LARGEST = 65504.0
"""Float16's largest number."""


class KeyRange(NamedTuple):
    """Positions of keys, from the first to before the last."""

    begin: Value
    end: Value


class HeadRows(NamedTuple):
    """A head's keys or values: where position 0 is, bytes of a row, the kind of the numbers."""

    address: Value
    row_bytes: int
    kind: str


class StoredRows(NamedTuple):
    """Addresses of a cache's keys, or of its values; scales and biases of quantized ones only."""

    numbers: Value  # (G, capacity, D) float16, or (G, capacity, 32n) codes
    scales: Value  # (G, capacity, n) float16
    biases: Value  # (G, capacity, n) float16


def padded(e: Emitter, head_dim: Value) -> Value:
    """Return the features of a row of whole groups: 32n."""
    return e.mul(e.ceil_div(head_dim, KV_GROUP), KV_GROUP)


# --- reading


def head_rows(
    e: Emitter,
    kind: str,
    what: str,
    head: Value,
    part: KeyRange,
    *,
    head_dim: int,
    target: Value,
) -> HeadRows:
    """Return where a head's keys or values are; codes are written as (rows, 32n) float32 first.

    Args:
        e: the kernel, whose arguments name the cache.
        kind: ``f32``, ``f16``, ``q8`` or ``q4``.
        what: ``key`` or ``value``.
        head: which one.
        part: the positions that will be read.
        head_dim: features of a row.
        target: where rows that are unpacked go.
    """
    head_bytes = e.argument("head_bytes")
    first = e.at(e.address(f"{what}s"), e.mul(head, head_bytes))
    if kind in ITEM_BYTES:
        return HeadRows(first, ITEM_BYTES[kind] * head_dim, kind)
    bits = BITS[kind]
    lanes = min(KV_GROUP, max(8, e.isa.lanes))
    floats = vector(F32, lanes)
    row_bytes = 4 * padded_features(head_dim)
    groups = e.index(padded_features(head_dim) // KV_GROUP)
    # 32 codes of a group take 4 * bits bytes, its scale and its bias two each
    tables = [
        e.at(e.address(f"{what}_{table}"), e.div(e.mul(head, head_bytes), 2 * bits))
        for table in ("scales", "biases")
    ]

    def dequantize_row(row: Value) -> None:
        first_group = e.mul(row, groups)

        def dequantize_group(place: Value) -> None:
            scale, bias = (
                load_float(e, table, e.mul(e.add(first_group, place), 2), "f16") for table in tables
            )
            source = e.at(first, e.mul(e.add(first_group, place), KV_GROUP * bits // 8))
            out_group = e.add(e.mul(e.sub(row, part.begin), groups), place)
            out = e.at(target, e.mul(out_group, 4 * KV_GROUP))
            for start in range(0, KV_GROUP, lanes):
                codes = load_codes(e, source, e.index(start * bits // 8), bits, lanes)
                numbers = e.b.uitofp(codes, floats)
                wide_scale = e.broadcast(scale, lanes)
                wide_bias = e.broadcast(bias, lanes)
                e.store(e.fma(numbers, wide_scale, wide_bias), out, 4 * start)

        e.loop(0, groups, dequantize_group)

    e.loop(part.begin, part.end, dequantize_row)
    return HeadRows(e.at(target, e.sub(0, e.mul(part.begin, row_bytes))), row_bytes, "f32")


# --- writing


def pack_row(
    e: Emitter,
    kind: str,
    stored: StoredRows,
    *,
    source: Value,
    head_offset: Value,
    row: Value,
    head_dim: Value,
) -> None:
    """Write one row of float32 into the cache.

    Args:
        e: the kernel; rows of quantized caches go through its scratch.
        kind: ``f16``, ``q8`` or ``q4``.
        stored: the cache's keys or values.
        source: the row.
        head_offset: bytes from the first head's numbers or codes to this one's.
        row: the row's number in its head.
        head_dim: features of a row.
    """
    if kind == "f16":
        out = e.at(stored.numbers, e.add(head_offset, e.mul(row, e.mul(head_dim, 2))))

        def narrow(place: Value, lanes: int) -> None:
            numbers = e.load(source, e.mul(place, 4), vector(F32, lanes))
            e.store(to_f16(e, _saturate(e, numbers)), out, e.mul(place, 2))

        e.sweep(head_dim, narrow)
        return

    bits = BITS[kind]
    groups = e.ceil_div(head_dim, KV_GROUP)
    first_group = e.mul(row, groups)
    codes = e.at(stored.numbers, head_offset)
    tables = [e.at(t, e.div(head_offset, 2 * bits)) for t in (stored.scales, stored.biases)]

    def copy(place: Value, lanes: int) -> None:
        numbers = e.load(source, e.mul(place, 4), vector(F32, lanes))
        e.store(numbers, e.scratch, e.mul(place, 4))

    def pad(place: Value) -> None:
        e.store(e.const(F32, 0.0), e.scratch, e.mul(place, 4))

    def quantize_group(place: Value) -> None:
        group = e.add(first_group, place)
        numbers = e.load(e.scratch, e.mul(place, 4 * KV_GROUP), vector(F32, KV_GROUP))
        numbers = _saturate(e, numbers)
        words = _quantize(e, numbers, tables, group, bits)
        _store_codes(e, words, bits, e.at(codes, e.mul(group, KV_GROUP * bits // 8)))

    # to scratch, where zeros fill the last group
    e.sweep(head_dim, copy)
    e.loop(head_dim, padded(e, head_dim), pad)
    e.loop(0, groups, quantize_group)


def _saturate(e: Emitter, numbers: Value) -> Value:
    """Return float32 lanes with finite numbers beyond float16 brought to its largest."""
    floats = numbers.type
    limited = e.binary("maxnum", numbers, e.const(floats, -_LARGEST))
    limited = e.binary("minnum", limited, e.const(floats, _LARGEST))
    # false of NaN too
    is_finite = e.b.fcmp_ordered("<", e.unary("fabs", numbers), e.const(floats, math.inf))
    return e.b.select(is_finite, limited, numbers)


def _quantize(e: Emitter, numbers: Value, tables: list[Value], group: Value, bits: int) -> Value:
    """Return the codes of a group, (32,) integers; write its scale and bias into the tables."""
    floats = numbers.type
    scales, biases = tables
    largest_code = float((1 << bits) - 1)
    zero = e.const(F32, 0.0)
    low = _reduce(e, "fmin", numbers)
    high = _reduce(e, "fmax", numbers)
    # Scale and bias are rounded first, so that codes fit what is stored.
    bias = _store_rounded(e, low, biases, group)
    step = e.b.fdiv(e.b.fsub(high, low), e.const(F32, largest_code))
    scale = _store_rounded(e, step, scales, group)
    # a group of equal numbers has no scale: all its codes are 0
    is_positive = e.b.fcmp_ordered(">", scale, zero)
    inverse = e.b.select(is_positive, e.b.fdiv(e.const(F32, 1.0), scale), zero)
    above_bias = e.b.fsub(numbers, e.broadcast(bias, KV_GROUP))
    codes = e.b.fmul(above_bias, e.broadcast(inverse, KV_GROUP))
    codes = e.binary("maxnum", codes, e.const(floats, 0.0))
    codes = e.binary("minnum", codes, e.const(floats, largest_code))
    rounder = e.const(floats, ROUNDER)
    codes = e.b.fsub(e.b.fadd(codes, rounder), rounder)
    return e.b.fptosi(codes, vector(I32, KV_GROUP))


def _store_rounded(e: Emitter, number: Value, table: Value, place: Value) -> Value:
    """Write a number as float16 at a place of a table; return what was written."""
    e.store(to_f16(e, e.broadcast(number, 1)), table, e.mul(place, 2))
    return load_float(e, table, e.mul(place, 2), "f16")


def _reduce(e: Emitter, name: str, numbers: Value) -> Value:
    intrinsic = f"llvm.vector.reduce.{name}.v{numbers.type.count}f32"
    return e.call(intrinsic, F32, [numbers], fastmath=("nnan",))


def _store_codes(e: Emitter, words: Value, bits: int, target: Value) -> None:
    """Write (32,) codes as bytes; of 4 bits two to a byte, the first in its low half."""
    codes = e.b.trunc(words, vector(I8, KV_GROUP))
    if bits == 4:
        even, odd = (e.shuffle(codes, range(start, KV_GROUP, 2)) for start in (0, 1))
        codes = e.b.or_(even, e.b.shl(odd, e.const(vector(I8, KV_GROUP // 2), 4)))
    e.store(codes, target, 0)

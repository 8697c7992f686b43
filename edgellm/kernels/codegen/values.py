"""Types and values of LLVM's IR, and a builder of arithmetic on integers and vectors.

Comments say ``(n,)`` for a vector of n lanes; lane 0 lies lowest in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from llvmlite import ir

Value = Any
"""An IR value or type; llvmlite has no types that a checker can read."""

I8: Value = ir.IntType(8)
I16: Value = ir.IntType(16)
I32: Value = ir.IntType(32)
I64: Value = ir.IntType(64)
F32: Value = ir.FloatType()
F16: Value = ir.HalfType()
POINTER: Value = ir.PointerType()
VOID: Value = ir.VoidType()


class _BFloatType(ir.Type):  # type: ignore[misc]
    """bfloat16, which llvmlite has no type for."""

    def __str__(self) -> str:
        return "bfloat"


BFLOAT = _BFloatType()


@cache
def vector(element: Value, lanes: int) -> Value:
    """Return the type of ``lanes`` values of a type."""
    return ir.VectorType(element, lanes)


@cache
def _integers(element: Value, values: tuple[int, ...]) -> Value:
    """Return a constant vector; one that many shuffles share is written out once."""
    return ir.Constant(vector(element, len(values)), list(values))


class ValueBuilder:
    """Arithmetic, in the order in which its methods are called.

    Attributes:
        module: what is being built.
        b: llvmlite's builder, for single instructions.
    """

    module: Value
    b: Value

    # --- constants

    def index(self, value: int | Value) -> Value:
        """Return a 64-bit integer."""
        if isinstance(value, int):
            return ir.Constant(I64, value)
        return value

    def const(self, typ: Value, value: float | int) -> Value:
        """Return a constant; of a vector type, the same in every lane."""
        if isinstance(typ, ir.VectorType):
            return self.const_lanes(typ.element, [value] * typ.count)
        return ir.Constant(typ, value)

    def const_bit(self, value: bool) -> Value:
        """Return a truth value."""
        return ir.Constant(ir.IntType(1), int(value))

    def const_lanes(self, element: Value, values: Sequence[float]) -> Value:
        """Return a constant vector."""
        if isinstance(element, ir.IntType):
            return _integers(element, tuple(values))
        return ir.Constant(vector(element, len(values)), list(values))

    # --- 64-bit integers: positions, counts, bytes

    def add(self, x: int | Value, y: int | Value) -> Value:
        """Return ``x + y``."""
        return self.b.add(self.index(x), self.index(y))

    def sub(self, x: int | Value, y: int | Value) -> Value:
        """Return ``x - y``."""
        return self.b.sub(self.index(x), self.index(y))

    def mul(self, x: int | Value, y: int | Value) -> Value:
        """Return ``x * y``."""
        return self.b.mul(self.index(x), self.index(y))

    # Quotients, remainders, the smaller and the larger are of numbers that are not negative.

    def div(self, x: int | Value, y: int | Value) -> Value:
        """Return ``x // y``."""
        return self.b.udiv(self.index(x), self.index(y))

    def rem(self, x: int | Value, y: int | Value) -> Value:
        """Return ``x % y``."""
        return self.b.urem(self.index(x), self.index(y))

    def ceil_div(self, x: int | Value, y: int | Value) -> Value:
        """Return ``x / y``, rounded up."""
        return self.div(self.add(x, self.sub(y, 1)), y)

    def round_down(self, x: int | Value, multiple: int | Value) -> Value:
        """Return the largest multiple up to ``x``."""
        return self.mul(self.div(x, multiple), multiple)

    def min(self, x: int | Value, y: int | Value) -> Value:
        """Return the smaller number."""
        x, y = self.index(x), self.index(y)
        return self.b.select(self.b.icmp_unsigned("<", x, y), x, y)

    def max(self, x: int | Value, y: int | Value) -> Value:
        """Return the larger number."""
        x, y = self.index(x), self.index(y)
        return self.b.select(self.b.icmp_unsigned("<", x, y), y, x)

    def less(self, x: int | Value, y: int | Value) -> Value:
        """Return whether ``x < y``, with signs."""
        return self.b.icmp_signed("<", self.index(x), self.index(y))

    # --- intrinsics

    def call(
        self, name: str, result: Value, arguments: Sequence[Value], *, fastmath: Sequence[str] = ()
    ) -> Value:
        """Call an intrinsic or a function of the process, declared at its first call."""
        function = self.module.globals.get(name)
        if function is None:
            types = [argument.type for argument in arguments]
            function = ir.Function(self.module, ir.FunctionType(result, types), name=name)
        return self.b.call(function, arguments, fastmath=fastmath)

    def unary(self, name: str, x: Value) -> Value:
        """Call an intrinsic from a type to itself (``sqrt``, ``rint``, ``fabs``)."""
        return self.call(f"llvm.{name}.{_suffix(x.type)}", x.type, [x])

    def binary(self, name: str, x: Value, y: Value) -> Value:
        """Call an intrinsic of two values of one type (``maxnum``), neither of them NaN."""
        return self.call(f"llvm.{name}.{_suffix(x.type)}", x.type, [x, y], fastmath=("nnan",))

    def fma(self, x: Value, y: Value, z: Value) -> Value:
        """Return ``x * y + z``, fused where the processor has it."""
        return self.call(f"llvm.fmuladd.{_suffix(x.type)}", x.type, [x, y, z])

    # --- one number from a vector

    def reduce_sum(self, x: Value) -> Value:
        """Return the sum of a vector's lanes; of float32 ones in an order that LLVM chooses."""
        if x.type.element == F32:
            # -0.0 is what changes no sum; ``reassoc`` lets LLVM add in a tree of shuffles
            start = self.const(F32, -0.0)
            name = f"llvm.vector.reduce.fadd.{_suffix(x.type)}"
            return self.call(name, F32, [start, x], fastmath=("reassoc",))
        return self.call(f"llvm.vector.reduce.add.{_suffix(x.type)}", x.type.element, [x])

    def reduce_max(self, x: Value) -> Value:
        """Return the largest of a vector's float32 lanes, none of them NaN."""
        name = f"llvm.vector.reduce.fmax.{_suffix(x.type)}"
        return self.call(name, F32, [x], fastmath=("nnan",))

    def sum_by_halves(self, x: Value) -> Value:
        """Return the sum of a vector's lanes, (1,), always added in the same order.

        The upper half is added to the lower one until one lane is left.
        """
        while x.type.count > 1:
            half = x.type.count // 2
            x = self.b.fadd(self.part(x, 0, half), self.part(x, half, half))
        return x

    # --- lanes

    def broadcast(self, x: Value, lanes: int) -> Value:
        """Return one value in every lane."""
        typ = vector(x.type, lanes)
        undefined = ir.Constant(typ, ir.Undefined)
        first = self.b.insert_element(undefined, x, ir.Constant(I32, 0))
        return self.b.shuffle_vector(first, undefined, self.const(vector(I32, lanes), 0))

    def shuffle(self, x: Value, order: Sequence[int], y: Value | None = None) -> Value:
        """Return lanes by number: those of ``x``, then those of ``y``."""
        if y is None:
            y = ir.Constant(x.type, ir.Undefined)
        return self.b.shuffle_vector(x, y, self.const_lanes(I32, order))

    def part(self, x: Value, start: int, lanes: int) -> Value:
        """Return ``lanes`` lanes from ``start`` on."""
        if lanes == x.type.count:
            return x
        return self.shuffle(x, range(start, start + lanes))

    def concat(self, parts: Sequence[Value]) -> Value:
        """Return vectors of one length (their number a power of two), end to end."""
        while len(parts) > 1:
            lanes = parts[0].type.count
            parts = [
                self.shuffle(x, range(2 * lanes), y)
                for x, y in zip(parts[::2], parts[1::2], strict=True)
            ]
        return parts[0]

    def transpose(self, rows: Sequence[Value]) -> list[Value]:
        """Return the columns of a square block of vectors: n vectors of n lanes.

        Each of log2(n) rounds interleaves row i with row i + n / 2, which moves one bit of the row
        number into the lane number.
        """
        count = len(rows)
        assert rows[0].type.count == count, "a square block"
        # lanes of x and y by turns: x0 y0 x1 y1 ..., first from their lower halves
        low = [place + side * count for place in range(count // 2) for side in (0, 1)]
        high = [place + count // 2 for place in low]
        columns = list(rows)
        for _ in range(count.bit_length() - 1):
            half = count // 2
            columns = [
                self.shuffle(columns[pair], order, columns[pair + half])
                for pair in range(half)
                for order in (low, high)
            ]
        return columns


def _suffix(typ: Value) -> str:
    """Return a type as intrinsics' names say it: ``v8f32``."""
    if isinstance(typ, ir.VectorType):
        return f"v{typ.count}{_suffix(typ.element)}"
    return {F32: "f32", F16: "f16"}.get(typ) or f"i{typ.width}"

"""A thin layer over llvmlite's IR builder: addresses, vectors, and loops that carry their values in registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from edgellm.kernels.codegen.abi import CALL, STEP_TOKENS
from edgellm.kernels.codegen.isa import Isa

Value = Any
"""An IR value; llvmlite has no types that a checker can read."""

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
F32, F16 = ir.FloatType(), ir.HalfType()
POINTER = ir.PointerType()
VOID = ir.VoidType()


class _BFloatType(ir.Type):  # type: ignore[misc]
    """bfloat16, which llvmlite has no type for."""

    def __str__(self) -> str:
        return "bfloat"


BFLOAT = _BFloatType()

CACHE_LINE = 64
AHEAD = 4096
"""Bytes that weights are asked for ahead, into the second-level cache: the processor's own prefetcher stops at every page
(14 GB/s without, 23 with it; 2 to 16 KB ahead and either cache give the same)."""
SLOT = 8
"""Bytes; every argument of a kernel takes one slot."""


def vector(kind: Value, lanes: int) -> Value:
    """The type of ``lanes`` values of a kind."""
    return ir.VectorType(kind, lanes)


class Emitter:
    """One function under construction: ``b`` is llvmlite's builder, the methods are what kernels are made of.

    A kernel is ``void (step, call, pool, thread)``: addresses of its own arguments, of the
    arguments that all steps of a call share, and of the threads' common state; then the thread's
    number.
    """

    def __init__(
        self, isa: Isa, name: str, *, result: Value = VOID, arguments: Sequence[Value] | None = None
    ) -> None:
        self.isa = isa
        self.module = ir.Module(name=name)
        self.module.triple = isa.triple
        arguments = (POINTER, POINTER, POINTER, I64) if arguments is None else arguments
        self.function = ir.Function(self.module, ir.FunctionType(result, arguments), name=name)
        self.function.attributes.add("nounwind")
        self.b = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.arguments = self.function.args

    # constants and arithmetic

    def index(self, value: int | Value) -> Value:
        """A 64-bit integer."""
        return ir.Constant(I64, value) if isinstance(value, int) else value

    def const(self, kind: Value, value: float | int) -> Value:
        """A constant; the same in every lane of a vector type."""
        if isinstance(kind, ir.VectorType):
            return ir.Constant(kind, [value] * kind.count)
        return ir.Constant(kind, value)

    def const_bit(self, value: bool) -> Value:
        """A truth value."""
        return ir.Constant(ir.IntType(1), int(value))

    def lanes(self, kind: Value, values: Sequence[float]) -> Value:
        """A constant vector."""
        return ir.Constant(vector(kind, len(values)), list(values))

    def add(self, x: int | Value, y: int | Value) -> Value:
        """Sum of two 64-bit integers."""
        return self.b.add(self.index(x), self.index(y))

    def sub(self, x: int | Value, y: int | Value) -> Value:
        """Difference of two 64-bit integers."""
        return self.b.sub(self.index(x), self.index(y))

    def mul(self, x: int | Value, y: int | Value) -> Value:
        """Product of two 64-bit integers."""
        return self.b.mul(self.index(x), self.index(y))

    def div(self, x: int | Value, y: int | Value) -> Value:
        """Quotient of two 64-bit integers that are not negative."""
        return self.b.udiv(self.index(x), self.index(y))

    def rem(self, x: int | Value, y: int | Value) -> Value:
        """Rest of a division of two 64-bit integers that are not negative."""
        return self.b.urem(self.index(x), self.index(y))

    def ceil_div(self, x: int | Value, y: int | Value) -> Value:
        """Quotient, rounded up."""
        return self.div(self.add(x, self.sub(y, 1)), y)

    def min(self, x: int | Value, y: int | Value) -> Value:
        """The smaller of two 64-bit integers that are not negative."""
        x, y = self.index(x), self.index(y)
        return self.b.select(self.b.icmp_unsigned("<", x, y), x, y)

    def max(self, x: int | Value, y: int | Value) -> Value:
        """The larger of two 64-bit integers that are not negative."""
        x, y = self.index(x), self.index(y)
        return self.b.select(self.b.icmp_unsigned("<", x, y), y, x)

    def less(self, x: int | Value, y: int | Value) -> Value:
        """Whether a signed 64-bit integer is below another."""
        return self.b.icmp_signed("<", self.index(x), self.index(y))

    def fma(self, x: Value, y: Value, z: Value) -> Value:
        """``x * y + z``, fused where the processor has it."""
        return self.call(f"llvm.fmuladd.{_suffix(x.type)}", x.type, [x, y, z])

    def call(
        self, name: str, result: Value, arguments: Sequence[Value], *, fastmath: Sequence[str] = ()
    ) -> Value:
        """Call an intrinsic or a function of the process."""
        function = self.module.globals.get(name)
        if function is None:
            function = ir.Function(
                self.module,
                ir.FunctionType(result, [argument.type for argument in arguments]),
                name=name,
            )
        return self.b.call(function, arguments, fastmath=fastmath)

    def unary(self, name: str, x: Value) -> Value:
        """An intrinsic from a type to itself (``sqrt``, ``rint``, ``fabs``)."""
        return self.call(f"llvm.{name}.{_suffix(x.type)}", x.type, [x])

    def binary(self, name: str, x: Value, y: Value) -> Value:
        """An intrinsic of two values of one type (``maxnum``)."""
        return self.call(f"llvm.{name}.{_suffix(x.type)}", x.type, [x, y], fastmath=("nnan",))

    def sum(self, x: Value) -> Value:
        """The sum of a vector's lanes."""
        if x.type.element == F32:
            name = f"llvm.vector.reduce.fadd.{_suffix(x.type)}"
            function = self.module.globals.get(name)
            if function is None:
                function = ir.Function(self.module, ir.FunctionType(F32, [F32, x.type]), name=name)
            return self.b.call(function, [self.const(F32, -0.0), x], fastmath=("reassoc",))
        return self.call(f"llvm.vector.reduce.add.{_suffix(x.type)}", x.type.element, [x])

    def halved(self, x: Value) -> Value:
        """The sum of a vector's lanes, always in the same order: one half added to the other until one lane is left."""
        while x.type.count > 1:
            half = x.type.count // 2
            x = self.b.fadd(self.part(x, 0, half), self.part(x, half, half))
        return x

    def largest(self, x: Value) -> Value:
        """The largest of a vector's lanes."""
        return self.call(f"llvm.vector.reduce.fmax.{_suffix(x.type)}", F32, [x], fastmath=("nnan",))

    # vectors

    def spread(self, x: Value, lanes: int) -> Value:
        """One value in every lane."""
        kind = vector(x.type, lanes)
        one = self.b.insert_element(ir.Constant(kind, ir.Undefined), x, ir.Constant(I32, 0))
        return self.b.shuffle_vector(
            one, ir.Constant(kind, ir.Undefined), self.const(vector(I32, lanes), 0)
        )

    def shuffle(self, x: Value, places: Sequence[int], y: Value | None = None) -> Value:
        """Lanes of ``x`` (then ``y``) by number."""
        return self.b.shuffle_vector(
            x, ir.Constant(x.type, ir.Undefined) if y is None else y, self.lanes(I32, places)
        )

    def part(self, x: Value, start: int, lanes: int) -> Value:
        """``lanes`` lanes from ``start`` on."""
        return x if lanes == x.type.count else self.shuffle(x, range(start, start + lanes))

    def join(self, parts: Sequence[Value]) -> Value:
        """Vectors of one length (their number a power of two), end to end."""
        while len(parts) > 1:
            lanes = parts[0].type.count
            parts = [
                self.shuffle(x, range(2 * lanes), y)
                for x, y in zip(parts[::2], parts[1::2], strict=True)
            ]
        return parts[0]

    def transposed(self, rows: Sequence[Value]) -> list[Value]:
        """Columns of a square block of vectors, by log2(n) rounds of pairwise interleaving."""
        count = len(rows)
        assert rows[0].type.count == count, "a square block"
        low = [place + half * count for place in range(count // 2) for half in (0, 1)]
        high = [place + count // 2 for place in low]
        columns = list(rows)
        for _ in range(count.bit_length() - 1):
            half = count // 2
            columns = [
                self.shuffle(columns[pair], side, columns[pair + half])
                for pair in range(half)
                for side in (low, high)
            ]
        return columns

    # memory

    def at(self, base: Value, offset: int | Value) -> Value:
        """The address ``offset`` bytes after ``base``."""
        return self.b.gep(base, [self.index(offset)], source_etype=I8)

    def load(self, base: Value, offset: int | Value, kind: Value, *, align: int = 1) -> Value:
        """Read a value of a type."""
        return self.b.load(self.at(base, offset), typ=kind, align=align)

    def store(self, value: Value, base: Value, offset: int | Value, *, align: int = 1) -> None:
        """Write a value."""
        self.b.store(value, self.at(base, offset), align=align)

    def argument(self, number: int, kind: Value = I64) -> Value:
        """Argument ``number`` of this step."""
        return self.load(self.arguments[0], SLOT * number, kind, align=4)

    def address(self, number: int) -> Value:
        """Argument ``number`` of this step, an address."""
        return self.argument(number, POINTER)

    @property
    def tokens(self) -> Value:
        """How many tokens this step is about: its own number, or else the call's."""
        own, all_ = (
            self.argument(STEP_TOKENS),
            self.load(self.arguments[1], SLOT * CALL["tokens"], I64, align=8),
        )
        return self.b.select(self.less(0, own), own, all_)

    @property
    def scratch(self) -> Value:
        """The address of this thread's own memory."""
        base, nbytes = (
            self.load(self.arguments[1], SLOT * CALL[name], kind, align=8)
            for name, kind in (("scratch", POINTER), ("scratch_bytes", I64))
        )
        return self.at(base, self.mul(nbytes, self.arguments[3]))

    def prefetch(
        self, base: Value, offset: int | Value, nbytes: int, *, ahead: int = AHEAD
    ) -> None:
        """Ask for the bytes that will be read a little after these."""
        for line in range(0, nbytes, CACHE_LINE):
            arguments = [
                self.at(base, self.add(offset, ahead + line)),
                *(ir.Constant(I32, value) for value in (0, 2, 1)),
            ]
            self.call("llvm.prefetch.p0", VOID, arguments)

    # control

    def loop(
        self,
        start: int | Value,
        stop: int | Value,
        body: Callable[..., Sequence[Value] | None],
        carried: Sequence[Value] = (),
        *,
        step: int | Value = 1,
    ) -> list[Value]:
        """``for index in range(start, stop, step)``: the body gets index and carried values, and returns the next ones."""
        start, stop = self.index(start), self.index(stop)
        before = self.b.block
        head, inside, after = (
            self.function.append_basic_block(part) for part in ("head", "body", "after")
        )
        self.b.branch(head)
        self.b.position_at_end(head)
        index = self.b.phi(I64)
        index.add_incoming(start, before)
        phis = [self.b.phi(value.type) for value in carried]
        for phi, value in zip(phis, carried, strict=True):
            phi.add_incoming(value, before)
        self.b.cbranch(self.less(index, stop), inside, after)
        self.b.position_at_end(inside)
        values = body(index, *phis) or ()
        index.add_incoming(self.add(index, step), self.b.block)
        for phi, value in zip(phis, values, strict=True):
            phi.add_incoming(value, self.b.block)
        self.b.branch(head)
        self.b.position_at_end(after)
        return phis

    def sweep(
        self,
        count: Value,
        body: Callable[..., Sequence[Value] | None],
        carried: Sequence[Value] = (),
    ) -> list[Value]:
        """Go over ``count`` places, a vector at a time and the rest one by one.

        ``body(place, lanes, *values)`` returns the next values; those carried are vectors, and
        begin again as one lane. Returns the vectors and, for the rest, one lane each.
        """
        lanes = self.isa.lanes
        whole = self.mul(self.div(count, lanes), lanes)
        wide = self.loop(
            0, whole, lambda place, *values: body(place, lanes, *values), carried, step=lanes
        )
        first = [self.part(value, 0, 1) for value in carried]
        return wide + self.loop(whole, count, lambda place, *values: body(place, 1, *values), first)

    def when(self, condition: Value, then: Callable[[], object]) -> None:
        """Do something if a condition holds."""
        inside, after = (self.function.append_basic_block(part) for part in ("then", "after"))
        self.b.cbranch(condition, inside, after)
        self.b.position_at_end(inside)
        then()
        self.b.branch(after)
        self.b.position_at_end(after)

    def repeat(self, again: Callable[[], Value]) -> None:
        """Do something until it returns a false condition."""
        inside, after = (self.function.append_basic_block(part) for part in ("again", "after"))
        self.b.branch(inside)
        self.b.position_at_end(inside)
        self.b.cbranch(again(), inside, after)
        self.b.position_at_end(after)

    def finish(self) -> str:
        """Return the module's text."""
        self.b.ret_void()
        return str(self.module)


def _suffix(kind: Value) -> str:
    """How an intrinsic's name says a type."""
    if isinstance(kind, ir.VectorType):
        return f"v{kind.count}{_suffix(kind.element)}"
    return {F32: "f32", F16: "f16"}.get(kind) or f"i{kind.width}"

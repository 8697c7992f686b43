"""A kernel under construction, through llvmlite: its arguments, memory, and loops.

Loops carry their values in registers (phi nodes), so that sums stay out of memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from llvmlite import ir

from edgellm.kernels.codegen.abi import CALL, SLOT_BYTES, STEP_TOKENS
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.values import I8, I32, I64, POINTER, VOID, Value, ValueBuilder

CACHE_LINE = 64

PREFETCH_DISTANCE = 8192
"""Bytes that weights are asked for ahead, into the second-level cache.

The processor's own prefetcher stops at every page: 14 GB/s without, 23 with it. 2 to 16 KB ahead
and either cache give the same.
"""

KERNEL_ARGUMENTS: tuple[Value, ...] = (POINTER, POINTER, POINTER, I64)
"""The arguments of every kernel: step, call, pool, thread."""

Body = Callable[..., Sequence[Value] | None]
"""A loop's body: takes the index and the carried values, returns the next carried values."""


class Emitter(ValueBuilder):
    """One function under construction.

    A kernel is ``void (step, call, pool, thread)``: addresses of its own arguments, of those that
    all steps of a call share, and of the threads' common state; then the thread's number.

    Args:
        isa: the instructions that may be used.
        name: the name of the function.
        layout: the slots of the step's arguments by name (``codegen/abi.py``).
        arguments: types, where it is not a kernel.
        module: that it belongs to, where another function calls it; None: its own.
    """

    def __init__(
        self,
        isa: Isa,
        name: str,
        layout: Mapping[str, int] | None = None,
        *,
        arguments: Sequence[Value] = KERNEL_ARGUMENTS,
        module: Value | None = None,
    ) -> None:
        self.isa = isa
        self.module: Value = module or ir.Module(name=name)
        self.module.triple = isa.triple
        self.function: Value = ir.Function(self.module, ir.FunctionType(VOID, arguments), name=name)
        if module is not None:
            self.function.linkage = "internal"
        self.function.attributes.add("nounwind")
        self.b: Value = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.arguments: Value = self.function.args
        self._layout = layout or {}

    # --- memory

    def at(self, base: Value, offset: int | Value) -> Value:
        """Return the address ``offset`` bytes after ``base``."""
        return self.b.gep(base, [self.index(offset)], source_etype=I8)

    def load(self, base: Value, offset: int | Value, typ: Value, *, align: int = 1) -> Value:
        """Read a value of a type, ``offset`` bytes after ``base``."""
        return self.b.load(self.at(base, offset), typ=typ, align=align)

    def store(self, value: Value, base: Value, offset: int | Value, *, align: int = 1) -> None:
        """Write a value, ``offset`` bytes after ``base``."""
        self.b.store(value, self.at(base, offset), align=align)

    def prefetch(
        self, base: Value, offset: int | Value, nbytes: int, *, ahead: int = PREFETCH_DISTANCE
    ) -> None:
        """Ask for the bytes that will be read a little after these."""
        for line in range(0, nbytes, CACHE_LINE):
            address = self.at(base, self.add(offset, ahead + line))
            # to be read (0), into the second-level cache (2), as data (1)
            how = [ir.Constant(I32, value) for value in (0, 2, 1)]
            self.call("llvm.prefetch.p0", VOID, [address, *how])

    def prefetch_range(self, bases: Sequence[Value], begin: Value, nbytes: Value) -> None:
        """Ask for some bytes of each base at once."""

        def one_line(place: Value) -> None:
            for base in bases:
                self.prefetch(base, self.add(begin, place), CACHE_LINE, ahead=0)

        self.loop(0, nbytes, one_line, step=CACHE_LINE)

    def prefetch_to_write(self, base: Value, offset: int | Value) -> None:
        """Ask for a cache line that will be written soon."""
        # to be written (1), into the second-level cache (2), as data (1)
        how = [ir.Constant(I32, value) for value in (1, 2, 1)]
        self.call("llvm.prefetch.p0", VOID, [self.at(base, offset), *how])

    def in_order(self, value: Value) -> Value:
        """Return a value that is computed before what is read from memory behind this place.

        LLVM puts it off otherwise, until registers run out.
        """
        same = ir.FunctionType(value.type, [value.type])
        return self.b.asm(same, "", "=v,0,~{memory}", [value], True)

    # --- arguments of the step and of the call

    def argument(self, name: str, typ: Value = I64) -> Value:
        """Read an argument of this step."""
        return self._slot(self._layout[name], typ)

    def address(self, name: str) -> Value:
        """Read an argument of this step that is an address."""
        return self.argument(name, POINTER)

    def _slot(self, number: int, typ: Value) -> Value:
        return self.load(self.arguments[0], SLOT_BYTES * number, typ, align=4)

    def _call_argument(self, name: str, typ: Value) -> Value:
        return self.load(self.arguments[1], SLOT_BYTES * CALL[name], typ, align=8)

    @property
    def tokens(self) -> Value:
        """How many tokens this step is about: its own number, or else the call's."""
        step_tokens = self._slot(STEP_TOKENS, I64)
        call_tokens = self._call_argument("tokens", I64)
        return self.b.select(self.less(0, step_tokens), step_tokens, call_tokens)

    @property
    def scratch(self) -> Value:
        """The address of this thread's own memory."""
        base = self._call_argument("scratch", POINTER)
        nbytes = self._call_argument("scratch_bytes", I64)
        return self.at(base, self.mul(nbytes, self.arguments[3]))

    # --- control

    def blocks(self, *names: str) -> list[Value]:
        """Append basic blocks, in this order."""
        return [self.function.append_basic_block(name) for name in names]

    def loop(
        self,
        start: int | Value,
        stop: int | Value,
        body: Body,
        carried: Sequence[Value] = (),
        *,
        step: int | Value = 1,
    ) -> list[Value]:
        """Emit ``for index in range(start, stop, step)``; return the carried values after it."""
        start, stop = self.index(start), self.index(stop)
        before = self.b.block
        head, inside, after = self.blocks("head", "body", "after")
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
        # the body may have made blocks of its own: the last of them leads back
        index.add_incoming(self.add(index, step), self.b.block)
        for phi, value in zip(phis, values, strict=True):
            phi.add_incoming(value, self.b.block)
        self.b.branch(head)
        self.b.position_at_end(after)
        return phis

    def sweep(self, count: Value, body: Body, carried: Sequence[Value] = ()) -> list[Value]:
        """Go over ``count`` places, a vector at a time and the remainder one by one.

        ``body(place, lanes, *values)`` returns the next values. Those carried are vectors, and
        begin again as one lane for the remainder. Returns the vectors, then the single lanes.
        """
        lanes = self.isa.lanes
        vectors_end = self.round_down(count, lanes)

        def whole_vector(place: Value, *values: Value) -> Sequence[Value] | None:
            return body(place, lanes, *values)

        def one_lane(place: Value, *values: Value) -> Sequence[Value] | None:
            return body(place, 1, *values)

        vectors = self.loop(0, vectors_end, whole_vector, carried, step=lanes)
        first_lanes = [self.part(value, 0, 1) for value in carried]
        return vectors + self.loop(vectors_end, count, one_lane, first_lanes)

    def when(self, condition: Value, then: Callable[[], object]) -> None:
        """Do something if a condition holds."""
        inside, after = self.blocks("then", "after")
        self.b.cbranch(condition, inside, after)
        self.b.position_at_end(inside)
        then()
        self.b.branch(after)
        self.b.position_at_end(after)

    def repeat(self, again: Callable[[], Value]) -> None:
        """Do something until it returns a false condition."""
        inside, after = self.blocks("again", "after")
        self.b.branch(inside)
        self.b.position_at_end(inside)
        self.b.cbranch(again(), inside, after)
        self.b.position_at_end(after)

    def finish(self) -> str:
        """End the function; return the module's text."""
        self.b.ret_void()
        return str(self.module)

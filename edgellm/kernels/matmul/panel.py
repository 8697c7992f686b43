"""Rows of a weight, unpacked once for a block of tokens."""

from __future__ import annotations

from edgellm.kernels.codegen.dot import as_weights
from edgellm.kernels.codegen.emitter import F32, I8, I16, I32, Emitter, Value, vector
from edgellm.kernels.codegen.unpack import codes, load_float, load_floats
from edgellm.kernels.codegen.weight_format import WeightFormat
from edgellm.kernels.elementwise.pack import to_bf16


class Panel:
    """The unpacked rows of a product's weight: one of three forms in a thread's scratch."""

    def __init__(
        self,
        e: Emitter,
        form: WeightFormat,
        *,
        weight: Value,
        scales: Value,
        biases: Value,
        columns: Value,
    ) -> None:
        self.e, self.form = e, form
        self.weight, self.scales, self.biases, self.columns = weight, scales, biases, columns
        unit = form.item_bytes * 8 if form.dense else form.bits
        self.row_bytes = e.b.lshr(e.mul(columns, unit), e.index(3))
        self.groups = e.div(columns, form.group) if not form.dense else e.index(0)

    def scale(self, row: Value, group: Value) -> tuple[Value, Value]:
        """Scale and bias of a group."""
        e = self.e
        at = e.mul(e.add(e.mul(row, self.groups), group), self.form.item_bytes)
        return load_float(e, self.scales, at, self.form.kind), load_float(
            e, self.biases, at, self.form.kind
        )

    def numbers(self, row: Value, target: Value, *, narrow: bool) -> None:
        """Write a row as float32, or as bfloat16, in its own order."""
        e, form = self.e, self.form
        source = e.at(self.weight, e.mul(row, self.row_bytes))
        item = 2 if narrow else 4

        def put(floats: Value, place: Value) -> None:
            e.store(to_bf16(e, floats) if narrow else floats, target, e.mul(place, item))

        if form.dense:

            def plain(place: Value, lanes: int) -> None:
                if narrow and form.kind == "bf16":
                    e.store(
                        e.load(source, e.mul(place, 2), vector(I16, lanes)), target, e.mul(place, 2)
                    )
                else:
                    put(
                        load_floats(e, source, e.mul(place, form.item_bytes), form.kind, lanes),
                        place,
                    )

            e.sweep(self.columns, plain)
            return

        def group(number: Value) -> None:
            first = e.mul(number, form.group)
            scale, bias = self.scale(row, number)
            if narrow and form.bits == 4:
                self._looked_up(source, target, first, scale, bias)
                return
            lanes = max(8, e.isa.lanes)
            floats = vector(F32, lanes)
            wide_scale, wide_bias = e.spread(scale, lanes), e.spread(bias, lanes)

            def some(place: Value) -> None:
                at = e.add(first, place)
                found = codes(
                    e, source, e.b.lshr(e.mul(at, form.bits), e.index(3)), form.bits, lanes
                )
                put(e.fma(e.b.uitofp(found, floats), wide_scale, wide_bias), at)

            e.loop(0, form.group, some, step=lanes)

        e.loop(0, self.groups, group)

    def _looked_up(
        self, source: Value, target: Value, first: Value, scale: Value, bias: Value
    ) -> None:
        """4-bit codes as bfloat16: a group has only 16 different weights, so each is rounded once and then looked up."""
        e = self.e
        words = vector(I32, 16)
        table = e.fma(e.lanes(F32, range(16)), e.spread(scale, 16), e.spread(bias, 16))
        entries = to_bf16(e, table)
        entries = e.shuffle(entries, [lane % 16 for lane in range(32)])
        for start in range(0, self.form.group, 32):
            at = e.add(first, start)
            packed = e.b.zext(e.load(source, e.b.lshr(at, e.index(1)), vector(I8, 16)), words)
            pairs = e.b.or_(packed, e.b.shl(packed, e.const(words, 12)))
            places = e.b.bitcast(e.b.and_(pairs, e.const(words, 0x000F000F)), vector(I16, 32))
            found = e.call("llvm.x86.avx512.permvar.hi.512", entries.type, [entries, places])
            e.store(found, target, e.mul(at, 2))

    def bytes(self, row: Value, target: Value) -> None:
        """Write a row's codes as bytes in the form of ``dot``; 4-bit ones as ``quantize`` splits activations."""
        e, form = self.e, self.form
        source = e.at(self.weight, e.mul(row, self.row_bytes))
        count = 16
        kind = vector(I8, count)
        half = e.b.lshr(self.columns, e.index(1))

        def some(place: Value) -> None:
            packed = e.load(source, place, kind)
            if form.bits == 8:
                e.store(as_weights(e, packed, 8), target, place)
                return
            e.store(e.b.and_(packed, e.const(kind, 15)), target, place)
            e.store(e.b.lshr(packed, e.const(kind, 4)), target, e.add(half, place))

        e.loop(0, self.row_bytes, some, step=count)

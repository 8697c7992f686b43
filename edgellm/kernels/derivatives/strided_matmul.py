"""Products of plain numbers as they lie: of rows, of columns, of parts of something larger."""

# M rows, N columns, K what is summed over

from __future__ import annotations

from collections.abc import Sequence

from edgellm.kernels.codegen.abi import STRIDED_MATMUL
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import parallel_for
from edgellm.kernels.codegen.values import F32, I64, POINTER, Value, vector

_VECTORS = 2
"""Vectors of columns that are summed at once."""


def emit_strided_matmul(isa: Isa, name: str, target: str) -> str:
    """Emit ``strided_matmul``: ``out = factor * left @ right``, or added (``target``: set, add).

    Each number's sum is over K in its order, whoever computes it. The arguments are those of
    ``abi.STRIDED_MATMUL``.
    """
    e = Emitter(isa, name, STRIDED_MATMUL)
    block = BlockProduct(e, target)
    rows, columns = e.argument("rows"), e.argument("columns")
    item_rows, item_columns = e.argument("item_rows"), e.argument("item_columns")
    bands = e.ceil_div(rows, item_rows)
    left_row, out_row = e.argument("left_row"), e.argument("out_row")

    def one_item(item: Value) -> None:
        row = e.mul(e.rem(item, bands), item_rows)
        column = e.mul(e.div(item, bands), item_columns)
        place = e.mul(column, 4)
        block(
            e,
            Strided(e.at(e.address("left"), e.mul(row, left_row)), left_row),
            Strided(e.at(e.address("right"), place), e.argument("right_row")),
            Strided(e.at(e.address("out"), e.add(e.mul(row, out_row), place)), out_row),
            left_column=e.argument("left_column"),
            rows=e.min(item_rows, e.sub(rows, row)),
            columns=e.min(item_columns, e.sub(columns, column)),
            summed=e.argument("summed"),
            factor=e.argument("factor", F32),
        )

    parallel_for(e, e.mul(bands, e.ceil_div(columns, item_columns)), one_item)
    return e.finish()


class Strided:
    """Numbers in memory: where they begin, and bytes from a row to the next."""

    def __init__(self, address: Value, row: int | Value) -> None:
        self.address = address
        self.row = row


class BlockProduct:
    """A function of a kernel's module that multiplies blocks, and its calls.

    Args:
        kernel: that calls it.
        target: whether results are ``set`` or ``add``.
    """

    def __init__(self, kernel: Emitter, target: str) -> None:
        arguments = [POINTER, I64, I64, POINTER, I64, POINTER, I64, I64, I64, I64, F32]
        e = Emitter(
            kernel.isa,
            f"{kernel.function.name}_block_{target}",
            arguments=arguments,
            module=kernel.module,
        )
        self._e = e
        self._adds = target == "add"
        self.function: Value = e.function
        left, left_row, self._left_column, right, right_row, out, out_row, *sizes = e.arguments
        self._left, self._right = Strided(left, left_row), Strided(right, right_row)
        self._out = Strided(out, out_row)
        self._rows, self._columns, self._summed, self._factor = sizes
        self._emit()

    def __call__(
        self,
        e: Emitter,
        left: Strided,
        right: Strided,
        out: Strided,
        *,
        left_column: int | Value,
        rows: int | Value,
        columns: int | Value,
        summed: int | Value,
        factor: Value | None = None,
    ) -> None:
        """Emit a call: ``out (M, N) (+)= factor * left (M, K) @ right (K, N)``.

        Args:
            e: the kernel.
            left: whose numbers of a row are ``left_column`` bytes apart.
            right, out: whose numbers of a row lie one after the other.
            left_column: in bytes.
            rows: M.
            columns: N.
            summed: K.
            factor: float32; None: 1.
        """
        places = [left.row, left_column, right.address, right.row, out.address, out.row]
        numbers = [rows, columns, summed]
        e.b.call(
            self.function,
            [
                left.address,
                *(e.index(place) for place in places),
                *(e.index(number) for number in numbers),
                e.const(F32, 1.0) if factor is None else factor,
            ],
        )

    def _emit(self) -> None:
        e = self._e
        # sums in half of the registers, where two vectors of each row are summed
        tall = e.isa.registers // (2 * _VECTORS)
        place: Value = e.index(0)
        lanes = e.isa.lanes
        widths = [(_VECTORS, lanes)]
        while lanes:
            widths.append((1, lanes))
            lanes //= 2
        for vectors, lanes in widths:
            width = vectors * lanes
            end = e.add(place, e.round_down(e.sub(self._columns, place), width))

            def some_columns(column: Value, vectors: int = vectors, lanes: int = lanes) -> None:
                begin: Value = e.index(0)
                for height in (tall, tall // 2, 1):
                    stop = e.add(begin, e.round_down(e.sub(self._rows, begin), height))

                    def some_rows(row: Value, height: int = height) -> None:
                        self._tile(row, column, height=height, vectors=vectors, lanes=lanes)

                    e.loop(begin, stop, some_rows, step=height)
                    begin = stop

            e.loop(place, end, some_columns, step=width)
            place = end
        e.finish()

    def _tile(self, row: Value, column: Value, *, height: int, vectors: int, lanes: int) -> None:
        """Write some rows' results of some columns."""
        e = self._e
        floats = vector(F32, lanes)
        offsets = [e.mul(e.add(column, part * lanes), 4) for part in range(vectors)]
        lefts = [
            e.at(self._left.address, e.mul(e.add(row, number), self._left.row))
            for number in range(height)
        ]

        def one_product(place: Value, *sums: Value) -> Sequence[Value]:
            line = e.at(self._right.address, e.mul(place, self._right.row))
            numbers = [e.load(line, offset, floats, align=4) for offset in offsets]
            start = e.mul(place, self._left_column)
            added = []
            for number, left in enumerate(lefts):
                factor = e.broadcast(e.load(left, start, F32, align=4), lanes)
                for part, right in enumerate(numbers):
                    added.append(e.fma(factor, right, sums[number * vectors + part]))
            return added

        zeros = [e.const(floats, 0.0)] * (height * vectors)
        sums = e.loop(0, self._summed, one_product, zeros)
        factor = e.broadcast(self._factor, lanes)
        for number in range(height):
            target = e.at(self._out.address, e.mul(e.add(row, number), self._out.row))
            for part, offset in enumerate(offsets):
                result = e.b.fmul(sums[number * vectors + part], factor)
                if self._adds:
                    result = e.b.fadd(e.load(target, offset, floats, align=4), result)
                e.store(result, target, offset, align=4)

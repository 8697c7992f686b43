"""Rows of a weight as plain numbers, turned: what a derivative by a product's inputs takes."""

# R rows of a weight, K its columns

from __future__ import annotations

from edgellm.kernels.codegen.abi import TURN, turned_square
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import parallel_for
from edgellm.kernels.codegen.unpack import to_bf16
from edgellm.kernels.codegen.values import Value
from edgellm.kernels.codegen.weight_format import ITEM_BYTES, WeightFormat
from edgellm.kernels.matmul.panel import Panel

_ITEM_COLUMNS = 64
"""Columns that a thread takes at once."""


def emit_turn(isa: Isa, name: str, weight_format: WeightFormat, kind: str) -> str:
    """Emit ``turn``: a weight's rows (R, K) become (K, R) numbers of ``kind``: bf16 or f32.

    There are at least ``abi.turned_square`` rows and columns. The last block of each overlaps
    the one before it. The arguments are those of ``abi.TURN``.
    """
    e = Emitter(isa, name, TURN)
    side = turned_square(isa.lanes)
    rows, columns = e.argument("rows"), e.argument("columns")
    row_bytes = e.mul(rows, ITEM_BYTES[kind])
    target = e.address("target")
    panel = Panel(
        e,
        weight_format,
        weight=e.address("weight"),
        scales=e.address("scales"),
        biases=e.address("biases"),
        in_features=columns,
    )

    def turn_square(row: Value, column: Value) -> None:
        lines = [panel.floats(e.add(row, place), column, side) for place in range(side)]
        for place, line in enumerate(e.transpose(lines)):
            own = to_bf16(e, line) if kind == "bf16" else line
            offset = e.add(e.mul(e.add(column, place), row_bytes), e.mul(row, ITEM_BYTES[kind]))
            e.store(own, target, offset)

    def one_item(item: Value) -> None:
        start = e.mul(item, _ITEM_COLUMNS)
        stop = e.min(e.add(start, _ITEM_COLUMNS), columns)

        def some_rows(first_row: Value) -> None:
            row = e.min(first_row, e.sub(rows, side))

            def some_columns(first_column: Value) -> None:
                turn_square(row, e.min(first_column, e.sub(columns, side)))

            e.loop(start, stop, some_columns, step=side)

        e.loop(0, rows, some_rows, step=side)

    parallel_for(e, e.ceil_div(columns, _ITEM_COLUMNS), one_item)
    return e.finish()

"""Many tokens times a weight in bfloat16 tiles (AMX), summed in float32."""

from __future__ import annotations

from edgellm.kernels.codegen.emitter import I8, VOID, Emitter, Value, vector
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.weight_format import WeightFormat
from edgellm.kernels.matmul.blocks import Frame


def emit_tile_matmul(isa: Isa, name: str, form: WeightFormat) -> str:
    """Arguments as ``Frame`` has them; activations are packed pairs of bfloat16, and columns a multiple of 32.

    Two tiles of rows by two of tokens: tiles 0-3 hold results, 4-5 weights (16 rows, 32 columns),
    6-7 activations (16 pairs of columns, 16 tokens).
    """
    frame = Frame(isa, name, form)
    e = frame.e
    configure(e)

    def multiply(count: Value, start: Value, vectors: int) -> None:
        step = e.mul(frame.columns, 2 * 16)
        base = e.at(frame.activations, e.mul(start, step))

        def rows(first: Value) -> None:
            at = e.at(frame.panel_at, e.mul(first, frame.row_bytes))
            for number in range(2 * vectors):
                tile(e, "tilezero", number)

            def columns(k: Value) -> None:
                for v in range(vectors):
                    tile(
                        e,
                        "tileloadd64",
                        6 + v,
                        e.at(base, e.add(e.mul(step, v), e.mul(k, 32))),
                        e.index(64),
                    )
                for r in range(2):
                    source = e.at(at, e.add(e.mul(frame.row_bytes, 16 * r), e.mul(k, 2)))
                    tile(e, "tileloadd64", 4 + r, source, frame.row_bytes)
                for r in range(2):
                    for v in range(vectors):
                        tile(
                            e, "tdpbf16ps", r * vectors + v, e.const(I8, 4 + r), e.const(I8, 6 + v)
                        )

            e.loop(0, frame.columns, columns, step=32)
            for r in range(2):
                for v in range(vectors):
                    place = e.add(e.mul(e.add(first, 16 * r), frame.result_bytes), 64 * v)
                    tile(
                        e,
                        "tilestored64",
                        r * vectors + v,
                        e.at(frame.results, place),
                        e.index(frame.result_bytes),
                    )

        e.loop(0, count, rows, step=32)

    return frame.emit(
        lambda row, place, target: frame.panel.numbers(row, target, narrow=True),
        multiply,
        lambda: e.call("llvm.x86.tilerelease", VOID, []),
    )


def tile(e: Emitter, what: str, number: int, *arguments: Value) -> None:
    """An instruction on a tile."""
    e.call(f"llvm.x86.{what}", VOID, [e.const(I8, number), *arguments])


def configure(e: Emitter, *, inner: int = 64) -> None:
    """Eight tiles of 16 rows of 64 bytes; where ``inner`` is less, 1 and 4 have rows of that, and 2 and 5 as many words."""
    columns, rows = [64] * 8, [16] * 8
    for left, right in ((1, 2), (4, 5)):
        columns[left], rows[right] = inner, inner // 4
    setting = [
        1,
        *[0] * 15,
        *(half for column in columns for half in (column, 0)),
        *[0] * 16,
        *rows,
        *[0] * 8,
    ]
    at = e.b.alloca(vector(I8, 64))
    at.align = 64
    e.b.store(e.lanes(I8, setting), at)
    e.call("llvm.x86.ldtilecfg", VOID, [at])

"""A product with a weight as steps: which kernels do it, for few tokens and for many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgellm.kernels.codegen.abi import (
    SOME,
    TILE,
    block_rows,
    item_rows,
    matmul_scratch,
    tile_scratch,
)
from edgellm.kernels.codegen.weight_format import Format
from edgellm.kernels.engine import Engine, Step


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight (rows, columns) in somebody's memory, by address; the contents may change, the addresses may not.

    Attributes:
        form: how it is stored.
        rows: results a token.
        columns: inputs a token.
        weight: of packed codes or plain numbers.
        scales: and
        biases: of groups; 0 for plain numbers.
        bias: added to the results; 0 for none.
        bias_kind: of its numbers.
    """

    form: Format
    rows: int
    columns: int
    weight: int
    scales: int = 0
    biases: int = 0
    bias: int = 0
    bias_kind: str = "f32"


def path(engine: Engine, matrix: Matrix, *, many: bool) -> str:
    """``int8``, ``tiles`` or ``float``: how a product is done.

    Unquantized weights of 16 bits are multiplied in float32 for few tokens. For many, bfloat16 ones
    go into tiles as they are; float16 ones would lose three bits there, so they stay in float32.
    """
    coded = matrix.form.bits in (4, 8) and engine.isa.dot is not None
    if engine.activations == "float":
        return "float"
    fits = not matrix.form.dense or matrix.form.kind == "bf16"
    if many and fits and engine.isa.tiles and matrix.columns % 32 == 0:
        return "tiles"
    return "int8" if coded else "float"


def product_steps(
    engine: Engine, matrices: Sequence[Matrix], x: int, out: int, *, tokens: int, add: bool = False
) -> list[Step]:
    """Steps for ``out (+)= x @ matrix.T (+ bias)``, matrices side by side in ``out``.

    Up to ``engine.max_exact_rows`` tokens, each gets bit for bit what it would get alone.

    Args:
        engine: the kernels.
        matrices: with the same number of columns.
        x: address of (L, columns) float32.
        out: address of (L, all rows) float32.
        tokens: the most that L will be.
        add: whether to add to ``out``.
    """
    stride = 4 * sum(matrix.rows for matrix in matrices)
    steps: list[Step] = []
    prepared: dict[object, Sequence[int]] = {}
    for matrix in matrices:
        kernel = _kernel(engine, matrix, tokens)
        way = _WAYS[kernel]
        key = (way, matrix.form.group, matrix.form.bits == 4) if way.codes else way
        if key not in prepared:
            prepared[key], before = _inputs(
                engine, matrix, x, way, tokens=tokens, name=f"inputs {len(prepared)}"
            )
            steps += before
        steps.append(_multiply(engine, matrix, kernel, prepared[key], (out, stride, int(add))))
        if matrix.bias:
            steps.append(
                (engine.kernel("bias", matrix.bias_kind), out, stride, matrix.bias, matrix.rows)
            )
        out += 4 * matrix.rows
    return steps


@dataclass(frozen=True, slots=True)
class _Way:
    """How a kernel takes activations.

    Attributes:
        codes: the order of the halves of 4-bit codes (``split``, ``tile``); empty for numbers.
        packed: what tokens are laid side by side (``words``, ``bf16``); empty where they stay one
            after the other.
        panel: bytes of a weight in the rows that are unpacked for many tokens; 0 for few.
    """

    codes: str = ""
    packed: str = ""
    panel: int = 0


_WAYS = {
    "int8_matvec": _Way("split"),
    "int8_few": _Way("split"),
    "tile_matvec": _Way("tile", "words"),
    "int8_matmul": _Way("split", "words", 1),
    "float_matvec": _Way(),
    "float_few": _Way(),
    "float_matmul": _Way("", "words", 4),
    "tile_matmul": _Way("", "bf16", 2),
}


def _kernel(engine: Engine, matrix: Matrix, tokens: int) -> str:
    """The kernel for so many tokens."""
    how = path(engine, matrix, many=tokens > engine.max_exact_rows)
    if tokens > engine.max_exact_rows:
        return {"int8": "int8_matmul", "tiles": "tile_matmul", "float": "float_matmul"}[how]
    if tokens == 1:
        return f"{how}_matvec"
    if how == "int8" and tokens > SOME and engine.isa.tiles and matrix.rows >= TILE:
        return "tile_matvec"
    return f"{how}_few"


def _inputs(
    engine: Engine, matrix: Matrix, x: int, way: _Way, *, tokens: int, name: str
) -> tuple[Sequence[int], list[Step]]:
    """Addresses of activations, scales and sums in the form that a product takes, and the steps that make them."""
    columns, group = matrix.columns, matrix.form.group
    padded = -(-tokens // engine.isa.lanes) * engine.isa.lanes

    def buffer(part: str, item_bytes: int, count: int) -> int:
        return engine.memory.reserved(f"{name} {part}", padded * item_bytes * count)

    if not way.codes:
        if not way.packed:
            return (x, 0, 0), []
        words = columns // 2 if way.packed == "bf16" else columns
        packed = buffer("packed", 4, words)
        return (packed, 0, 0), [(engine.kernel("pack", way.packed), x, packed, words)]
    groups = columns // group
    codes, scales, sums = (
        buffer("codes", 1, columns),
        buffer("scales", 4, groups),
        buffer("sums", 4, groups),
    )
    quantize = engine.kernel("quantize", group, way.codes if matrix.form.bits == 4 else "plain")
    steps: list[Step] = [(quantize, x, codes, scales, sums, groups)]
    if not way.packed:
        return (codes, scales, sums), steps
    pack = engine.kernel("pack", way.packed)
    results = []
    for part, source, words in (
        ("codes", codes, columns // 4),
        ("scales", scales, groups),
        ("sums", sums, groups),
    ):
        target = buffer(f"packed {part}", 4, words)
        steps.append((pack, source, target, words))
        results.append(target)
    return results, steps


def _multiply(
    engine: Engine, matrix: Matrix, kernel: str, inputs: Sequence[int], out: tuple[int, int, int]
) -> Step:
    form, columns, way = matrix.form, matrix.columns, _WAYS[kernel]
    head = (
        engine.kernel(kernel, form),
        *inputs,
        matrix.weight,
        matrix.scales,
        matrix.biases,
        matrix.rows,
    )
    groups = 0 if form.dense else columns // form.group
    if not way.panel:
        if kernel == "tile_matvec":
            engine.reserve_scratch(tile_scratch(groups))
        return (
            *head,
            groups if way.codes else columns,
            *out,
            item_rows(matrix.rows, engine.threads),
        )
    row_bytes = columns * way.panel
    rows = block_rows(row_bytes)
    engine.reserve_scratch(matmul_scratch(engine.isa.lanes, rows, row_bytes, groups))
    return (*head, columns, *out, rows, row_bytes)

"""A product with a weight as steps: which kernels do it, for few tokens and for many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgellm.kernels.engine import Engine, Step
from edgellm.kernels.form import Format
from edgellm.kernels.layout import block_rows, item_rows, matmul_scratch


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
    """``int8``, ``tiles`` or ``float``: how a product is done."""
    coded = matrix.form.bits in (4, 8) and engine.isa.dot is not None
    if engine.activations == "float":
        return "float"
    if many and engine.isa.tiles and matrix.columns % 32 == 0 and matrix.form != Format(0, 0, "f32"):
        return "tiles"
    return "int8" if coded else "float"


def product_steps(
    engine: Engine, matrices: Sequence[Matrix], x: int, out: int, *, tokens: int, add: bool = False
) -> list[Step]:
    """Steps for ``out (+)= x @ matrix.T (+ bias)``, matrices side by side in ``out``.

    Args:
        engine: the kernels.
        matrices: with the same number of columns.
        x: address of (L, columns) float32.
        out: address of (L, all rows) float32.
        tokens: the most that L will be.
        add: whether to add to ``out``.
    """
    many = tokens > engine.few
    stride = 4 * sum(matrix.rows for matrix in matrices)
    steps: list[Step] = []
    prepared: dict[object, Sequence[int]] = {}
    for matrix in matrices:
        how = path(engine, matrix, many=many)
        key = (how, matrix.form.group, matrix.form.bits == 4) if how == "int8" else how
        if key not in prepared:
            prepared[key], before = _inputs(engine, matrix, x, how, tokens=tokens, name=f"inputs {len(prepared)}", many=many)
            steps += before
        steps.append(_multiply(engine, matrix, how, prepared[key], (out, stride, int(add)), many=many))
        if matrix.bias:
            steps.append((engine.kernel("bias", matrix.bias_kind), out, stride, matrix.bias, matrix.rows))
        out += 4 * matrix.rows
    return steps


def _inputs(
    engine: Engine, matrix: Matrix, x: int, how: str, *, tokens: int, name: str, many: bool
) -> tuple[Sequence[int], list[Step]]:
    """Addresses of activations, scales and sums in the form that a product takes, and the steps that make them."""
    columns, group = matrix.columns, matrix.form.group
    padded = -(-tokens // engine.isa.lanes) * engine.isa.lanes

    def buffer(part: str, item_bytes: int, count: int) -> int:
        return engine.memory.reserved(f"{name} {part}", padded * item_bytes * count)

    if how == "float" and not many:
        return (x, 0, 0), []
    if how != "int8":
        words = columns // 2 if how == "tiles" else columns
        packed = buffer("packed", 4, words)
        return (packed, 0, 0), [(engine.kernel("pack", "bf16" if how == "tiles" else "words"), x, packed, words)]
    groups = columns // group
    codes, scales, sums = buffer("codes", 1, columns), buffer("scales", 4, groups), buffer("sums", 4, groups)
    quantize = engine.kernel("quantize", group, "split" if matrix.form.bits == 4 else "plain")
    steps: list[Step] = [(quantize, x, codes, scales, sums, groups)]
    if not many:
        return (codes, scales, sums), steps
    pack = engine.kernel("pack", "words")
    results = []
    for part, source, words in (("codes", codes, columns // 4), ("scales", scales, groups), ("sums", sums, groups)):
        target = buffer(f"packed {part}", 4, words)
        steps.append((pack, source, target, words))
        results.append(target)
    return results, steps


def _multiply(
    engine: Engine, matrix: Matrix, how: str, inputs: Sequence[int], out: tuple[int, int, int], *, many: bool
) -> Step:
    form, columns = matrix.form, matrix.columns
    head = (*inputs, matrix.weight, matrix.scales, matrix.biases, matrix.rows)
    if not many:
        taken = item_rows(matrix.rows, engine.threads)
        if how == "int8":
            return (engine.kernel("int8_matvec", form), *head, columns // form.group, *out, taken)
        return (engine.kernel("float_matvec", form), *head, columns, *out, taken)
    kernel, item_bytes = {"int8": ("int8_matmul", 1), "tiles": ("tile_matmul", 2), "float": ("float_matmul", 4)}[how]
    row_bytes = columns * item_bytes
    rows = block_rows(row_bytes)
    groups = 0 if form.dense else columns // form.group
    engine.reserve_scratch(matmul_scratch(engine.isa.lanes, rows, row_bytes, groups))
    return (engine.kernel(kernel, form), *head, columns, *out, rows, row_bytes)

"""A product with a weight as steps: which kernels do it, for few tokens and for many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgellm.kernels.codegen.abi import (
    MAX_VECTOR_ROWS,
    TILE,
    block_rows,
    item_rows,
    matmul_scratch,
    tile_scratch,
)
from edgellm.kernels.codegen.weight_format import WeightFormat
from edgellm.kernels.kernel_engine import KernelEngine, Step


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight (out_features, in_features) in somebody's memory, by address.

    The contents may change between calls, the addresses may not.

    Attributes:
        format: how it is stored.
        out_features: results a token.
        in_features: inputs a token.
        weight: address of packed codes or plain numbers.
        scales: address of the groups' scales; 0 for plain numbers.
        biases: address of the groups' biases; 0 for plain numbers.
        bias: address of what is added to the results; 0 for none.
        bias_kind: of its numbers.
    """

    format: WeightFormat
    out_features: int
    in_features: int
    weight: int
    scales: int = 0
    biases: int = 0
    bias: int = 0
    bias_kind: str = "f32"


def arithmetic(engine: KernelEngine, matrix: Matrix, *, many: bool) -> str:
    """Return how a product is done: ``int8``, ``tiles`` or ``float``.

    Unquantized weights of 16 bits are multiplied in float32 for few tokens. For many, bfloat16 ones
    go into tiles as they are; float16 ones would lose three bits there, so they stay in float32.
    """
    if engine.activations == "float":
        return "float"
    exact_in_tiles = not matrix.format.dense or matrix.format.kind == "bf16"
    if many and exact_in_tiles and engine.isa.tiles and matrix.in_features % 32 == 0:
        return "tiles"
    if matrix.format.bits in (4, 8) and engine.isa.dot is not None:
        return "int8"
    return "float"


def product_steps(
    engine: KernelEngine,
    matrices: Sequence[Matrix],
    x: int,
    out: int,
    *,
    tokens: int,
    add: bool = False,
) -> list[Step]:
    """Return the steps of ``out (+)= x @ matrix.T (+ bias)``, matrices side by side in ``out``.

    Up to ``engine.max_exact_rows`` tokens, each gets bit for bit what it would get alone.

    Args:
        engine: the kernels.
        matrices: with the same number of inputs.
        x: address of (L, in_features) float32.
        out: address of (L, all out_features) float32.
        tokens: the most that L will be.
        add: whether to add to ``out``.
    """
    stride = 4 * sum(matrix.out_features for matrix in matrices)
    steps: list[Step] = []
    prepared: dict[object, Sequence[int]] = {}  # inputs that several matrices can share
    for matrix in matrices:
        kernel = _kernel(engine, matrix, tokens)
        needs = _INPUTS[kernel]
        key: object = needs
        if needs.codes:  # quantized in the weight's groups, in the order of its codes
            key = (needs, matrix.format.group, matrix.format.bits == 4)
        if key not in prepared:
            name = f"inputs {len(prepared)}"
            prepared[key], before = _inputs(engine, matrix, x, needs, tokens=tokens, name=name)
            steps += before
        steps.append(_multiply(engine, matrix, kernel, prepared[key], (out, stride, int(add))))
        if matrix.bias:
            kernel_address = engine.kernel("bias", matrix.bias_kind)
            steps.append((kernel_address, out, stride, matrix.bias, matrix.out_features))
        out += 4 * matrix.out_features
    return steps


@dataclass(frozen=True, slots=True)
class _Inputs:
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


_INPUTS = {
    "int8_matvec": _Inputs(codes="split"),
    "int8_few": _Inputs(codes="split"),
    "tile_matvec": _Inputs(codes="tile", packed="words"),
    "int8_matmul": _Inputs(codes="split", packed="words", panel=1),
    "float_matvec": _Inputs(),
    "float_few": _Inputs(),
    "float_matmul": _Inputs(packed="words", panel=4),
    "tile_matmul": _Inputs(packed="bf16", panel=2),
}

_MATMULS = {"int8": "int8_matmul", "tiles": "tile_matmul", "float": "float_matmul"}


def _kernel(engine: KernelEngine, matrix: Matrix, tokens: int) -> str:
    """Return the name of the kernel for so many tokens."""
    many = tokens > engine.max_exact_rows
    kind = arithmetic(engine, matrix, many=many)
    if many:
        return _MATMULS[kind]
    if tokens == 1:
        return f"{kind}_matvec"
    tiles = engine.isa.tiles and matrix.out_features >= TILE
    if kind == "int8" and tokens > MAX_VECTOR_ROWS and tiles:
        return "tile_matvec"
    return f"{kind}_few"


def _inputs(
    engine: KernelEngine, matrix: Matrix, x: int, needs: _Inputs, *, tokens: int, name: str
) -> tuple[Sequence[int], list[Step]]:
    """Return addresses of activations, scales and sums as a kernel takes them, and their steps."""
    columns, group = matrix.in_features, matrix.format.group
    padded = -(-tokens // engine.isa.lanes) * engine.isa.lanes

    def buffer(part: str, item_bytes: int, count: int) -> int:
        return engine.workspace.reserved(f"{name} {part}", padded * item_bytes * count)

    if not needs.codes:
        if not needs.packed:
            return (x, 0, 0), []
        words = columns
        if needs.packed == "bf16":  # two to a word
            words = columns // 2
        packed = buffer("packed", 4, words)
        return (packed, 0, 0), [(engine.kernel("pack", needs.packed), x, packed, words)]
    groups = columns // group
    codes = buffer("codes", 1, columns)
    scales = buffer("scales", 4, groups)
    sums = buffer("sums", 4, groups)
    order = "plain"
    if matrix.format.bits == 4:  # two codes to a byte: their halves have an order
        order = needs.codes
    steps: list[Step] = [(engine.kernel("quantize", group, order), x, codes, scales, sums, groups)]
    if not needs.packed:
        return (codes, scales, sums), steps
    pack = engine.kernel("pack", needs.packed)
    packed_codes = buffer("packed codes", 4, columns // 4)
    packed_scales = buffer("packed scales", 4, groups)
    packed_sums = buffer("packed sums", 4, groups)
    steps += [
        (pack, codes, packed_codes, columns // 4),
        (pack, scales, packed_scales, groups),
        (pack, sums, packed_sums, groups),
    ]
    return (packed_codes, packed_scales, packed_sums), steps


def _multiply(
    engine: KernelEngine,
    matrix: Matrix,
    kernel: str,
    inputs: Sequence[int],
    out: tuple[int, int, int],
) -> Step:
    """Return the step of the product itself."""
    form, columns, needs = matrix.format, matrix.in_features, _INPUTS[kernel]
    weight = (matrix.weight, matrix.scales, matrix.biases, matrix.out_features)
    head = (engine.kernel(kernel, form), *inputs, *weight)
    groups = 0
    if not form.dense:
        groups = columns // form.group
    if needs.panel:
        row_bytes = columns * needs.panel
        rows = block_rows(row_bytes)
        engine.reserve_scratch(matmul_scratch(engine.isa.lanes, rows, row_bytes, groups))
        return (*head, columns, *out, rows, row_bytes)
    if kernel == "tile_matvec":
        engine.reserve_scratch(tile_scratch(groups))
    rows = item_rows(matrix.out_features, engine.threads)
    if needs.codes:
        return (*head, groups, *out, rows)
    return (*head, columns, *out, rows)

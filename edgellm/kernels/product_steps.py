"""A product with a weight as steps: which kernels do it, for few tokens and for many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from edgellm.kernels.codegen.abi import (
    BIAS,
    FEW_TOKENS,
    FLOAT_MATVEC,
    INT8_MATVEC,
    MATMUL,
    MAX_VECTOR_ROWS,
    PACK,
    QUANTIZE,
    STRETCH,
    TILE,
    block_rows,
    few_scratch,
    item_rows,
    matmul_scratch,
    stretch_rows,
    tile_scratch,
)
from edgellm.kernels.codegen.strips import STRIP_BLOCK_ROWS, strip_scratch
from edgellm.kernels.codegen.weight_format import WeightFormat
from edgellm.kernels.kernel_engine import KernelEngine, Step, make_step


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight (out_features, in_features) in somebody's memory, by address.

    The contents may change between calls, the addresses may not.

    Attributes:
        format: how it is stored.
        out_features: results per token.
        in_features: inputs a token.
        weight: address of packed codes or plain numbers.
        scales: address of the groups' scales; 0 for plain numbers.
        biases: address of the groups' biases; 0 for plain numbers.
        bias: address of what is added to the results; 0 for none.
        bias_kind: of its numbers.
        changes: low-rank products that are added to some of its results.
        stretch: address of what its results are multiplied by, changes included and before the
            bias, (out_features,) float32; 0 for nothing.
    """

    format: WeightFormat
    out_features: int
    in_features: int
    weight: int
    scales: int = 0
    biases: int = 0
    bias: int = 0
    bias_kind: str = "f32"
    changes: Sequence[MatrixChange] = ()
    stretch: int = 0

    @property
    def parts(self) -> list[tuple[int, int]]:
        """Where weight, scales and biases begin, and the bytes of a row of each."""
        stored = self.format
        if stored.dense:
            return [(self.weight, stored.item_bytes * self.in_features)]
        tables = stored.item_bytes * self.in_features // stored.group
        codes = self.in_features * stored.bits // 8
        return [(self.weight, codes), (self.scales, tables), (self.biases, tables)]


class MatrixChange(NamedTuple):
    """A change by an adapter, ``x @ down.T @ up.T``, and the first result that it is added to."""

    first: int
    down: Matrix
    up: Matrix


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
    width: int | None = None,
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
        width: numbers from a row of ``out`` to the next; None: those of all matrices.
    """
    # each matrix has its columns of a row of all results
    width = width or sum(matrix.out_features for matrix in matrices)
    results = _Results(out, 4 * width, int(add))
    steps: list[Step] = []
    inputs = _Inputs(engine, x, "inputs", tokens)
    for matrix in matrices:
        target = results
        if matrix.stretch:  # results may be added to others, which are not multiplied
            row_bytes = 4 * matrix.out_features
            stretched = engine.workspace.reserved("stretched", tokens * row_bytes)
            target = _Results(stretched, row_bytes, 0)
        steps += inputs.multiplied(matrix, target)
        if not matrix.stretch:
            steps += _bias_steps(engine, matrix, results)
        for change in matrix.changes:
            rank = change.down.out_features
            low = engine.workspace.reserved("low rank", 4 * tokens * rank)
            changed = target._replace(out=target.out + 4 * change.first, add=1)
            steps += inputs.multiplied(change.down, _Results(low, 4 * rank, 0))
            steps += _Inputs(engine, low, "low-rank inputs", tokens).multiplied(change.up, changed)
        if matrix.stretch:
            steps.append(_stretch_step(engine, matrix, target, results))
            steps += _bias_steps(engine, matrix, results)
        results = results._replace(out=results.out + 4 * matrix.out_features)
    return steps


def _bias_steps(engine: KernelEngine, matrix: Matrix, results: _Results) -> list[Step]:
    """Return the step that adds a matrix's bias, where it has one."""
    if not matrix.bias:
        return []
    bias = make_step(
        engine.kernel("bias", matrix.bias_kind),
        BIAS,
        out=results.out,
        out_stride=results.out_stride,
        bias=matrix.bias,
        out_features=matrix.out_features,
    )
    return [bias]


def _stretch_step(
    engine: KernelEngine, matrix: Matrix, source: _Results, results: _Results
) -> Step:
    """Return the step that multiplies a matrix's results, and writes or adds them."""
    target = "add" if results.add else "set"
    return make_step(
        engine.kernel("stretch", target),
        STRETCH,
        source=source.out,
        source_stride=source.out_stride,
        factors=matrix.stretch,
        out=results.out,
        out_stride=results.out_stride,
        out_features=matrix.out_features,
    )


class _Results(NamedTuple):
    """Where results go: the arguments of that name in ``codegen/abi.py``."""

    out: int
    out_stride: int
    add: int


class _Prepared(NamedTuple):
    """Activations as a kernel takes them: addresses, the arguments of that name."""

    activations: int
    activation_scales: int = 0
    activation_sums: int = 0


@dataclass(frozen=True, slots=True)
class _Needs:
    """How a kernel takes activations: float32 as they are, unless it says otherwise.

    Attributes:
        codes: the order of the halves of 4-bit codes (``split``, ``tile``); empty for numbers.
        packed: what tokens are laid side by side (``words``, ``bf16``); empty where they stay one
            after the other.
        panel: bytes of a weight in the rows that are unpacked for many tokens; 0 for few.
    """

    codes: str = ""
    packed: str = ""
    panel: int = 0


_NEEDS = {
    "int8_matvec": _Needs(codes="split"),
    "int8_few": _Needs(codes="split"),
    "tile_few": _Needs(codes="tile", packed="factors"),
    "tile_matvec": _Needs(codes="tile", packed="words"),
    "int8_matmul": _Needs(codes="split", packed="words", panel=1),
    "float_matvec": _Needs(),
    "float_few": _Needs(),
    "float_matmul": _Needs(packed="words", panel=4),
    "tile_matmul": _Needs(packed="bf16"),
}

_MATMULS = {"int8": "int8_matmul", "tiles": "tile_matmul", "float": "float_matmul"}


class _Inputs:
    """The inputs of some products, as their kernels take them: what can be shared is made once.

    Args:
        engine: the kernels.
        x: address of (L, in_features) float32.
        name: of what is made of them, in the workspace.
        tokens: the most that L will be.
    """

    def __init__(self, engine: KernelEngine, x: int, name: str, tokens: int) -> None:
        self._engine, self._x, self._name, self._tokens = engine, x, name, tokens
        self._prepared: dict[object, _Prepared] = {}

    def multiplied(self, matrix: Matrix, results: _Results) -> list[Step]:
        """Return the steps of a product, with those that prepare its inputs."""
        steps: list[Step] = []
        kernel = _kernel_name(self._engine, matrix, self._tokens)
        needs = _NEEDS[kernel]
        key: object = needs
        if needs.codes:  # quantized in the weight's groups, in the order of its codes
            key = (needs, matrix.format.group, matrix.format.bits == 4)
        if key not in self._prepared:
            name = f"{self._name} {len(self._prepared)}"
            self._prepared[key], steps = _prepare(
                self._engine, matrix, self._x, needs, tokens=self._tokens, name=name
            )
        prepared = self._prepared[key]
        product = _multiply(self._engine, matrix, kernel, prepared, results, tokens=self._tokens)
        return [*steps, product]


def _kernel_name(engine: KernelEngine, matrix: Matrix, tokens: int) -> str:
    """Return the name of the kernel for this many tokens."""
    many = tokens > engine.max_exact_rows
    kind = arithmetic(engine, matrix, many=many)
    if many:
        return _MATMULS[kind]
    if tokens == 1:
        return f"{kind}_matvec"
    tiles = engine.isa.tiles and matrix.out_features >= TILE
    if kind == "int8" and tiles and tokens > MAX_VECTOR_ROWS[matrix.format.bits]:
        if tokens <= FEW_TOKENS[-1]:
            return "tile_few"
        return "tile_matvec"
    return f"{kind}_few"


def _prepare(
    engine: KernelEngine, matrix: Matrix, x: int, needs: _Needs, *, tokens: int, name: str
) -> tuple[_Prepared, list[Step]]:
    """Return activations as a kernel takes them, and the steps that make them."""
    in_features, group = matrix.in_features, matrix.format.group
    # packed tokens come in whole vectors
    padded = -(-tokens // engine.isa.lanes) * engine.isa.lanes

    def buffer(part: str, item_bytes: int, count: int) -> int:
        """Return the address of (padded, count) items."""
        return engine.workspace.reserved(f"{name} {part}", padded * item_bytes * count)

    def pack(source: int, part: str, words: int, kind: str) -> tuple[int, Step]:
        target = buffer(part, 4, words)
        kernel = engine.kernel("pack", kind)
        return target, make_step(kernel, PACK, source=source, target=target, words=words)

    if not needs.codes:
        if not needs.packed:
            return _Prepared(x), []
        words = in_features
        if needs.packed == "bf16":  # two to a word
            words = in_features // 2
        packed, step = pack(x, "packed", words, needs.packed)
        return _Prepared(packed), [step]

    groups = in_features // group
    order = "plain"
    if matrix.format.bits == 4:  # two codes to a byte: their halves have an order
        order = needs.codes
    codes = buffer("codes", 1, in_features)
    scales = buffer("scales", 4, groups)
    sums = buffer("sums", 4, groups)
    quantize = make_step(
        engine.kernel("quantize", group, order),
        QUANTIZE,
        x=x,
        codes=codes,
        scales=scales,
        sums=sums,
        groups=groups,
    )
    if not needs.packed:
        return _Prepared(codes, scales, sums), [quantize]
    packed_scales, pack_scales = pack(scales, "packed scales", groups, "words")
    packed_sums, pack_sums = pack(sums, "packed sums", groups, "words")
    if needs.packed == "factors":
        return _Prepared(codes, packed_scales, packed_sums), [quantize, pack_scales, pack_sums]
    # four codes to a word
    packed_codes, pack_codes = pack(codes, "packed codes", in_features // 4, needs.packed)
    prepared = _Prepared(packed_codes, packed_scales, packed_sums)
    return prepared, [quantize, pack_codes, pack_scales, pack_sums]


def _multiply(
    engine: KernelEngine,
    matrix: Matrix,
    kernel: str,
    prepared: _Prepared,
    results: _Results,
    *,
    tokens: int,
) -> Step:
    """Return the step of the product itself, and reserve the scratch that it needs."""
    needs = _NEEDS[kernel]
    arguments = {
        **prepared._asdict(),
        "weight": matrix.weight,
        "scales": matrix.scales,
        "biases": matrix.biases,
        "out_features": matrix.out_features,
        **results._asdict(),
    }
    groups = 0
    if not matrix.format.dense:
        groups = matrix.in_features // matrix.format.group
    if kernel == "tile_matmul":
        layout = MATMUL
        engine.reserve_scratch(strip_scratch(tokens))
        arguments["block_rows"] = STRIP_BLOCK_ROWS
    elif needs.panel:
        layout = MATMUL
        row_bytes = matrix.in_features * needs.panel
        rows = block_rows(row_bytes)
        engine.reserve_scratch(matmul_scratch(engine.isa.lanes, rows, row_bytes, groups))
        arguments |= {"block_rows": rows, "panel_row_bytes": row_bytes}
    else:
        layout = FLOAT_MATVEC
        arguments["item_rows"] = item_rows(matrix.out_features, engine.threads)
        arguments["stretch_rows"] = stretch_rows(matrix.out_features, engine.threads)
    variant: tuple[object, ...] = (matrix.format,)
    if kernel == "tile_few":
        engine.reserve_scratch(few_scratch(groups))
        variant = (matrix.format, next(size for size in FEW_TOKENS if tokens <= size))
    if kernel == "tile_matvec":
        engine.reserve_scratch(tile_scratch(groups))
    if needs.codes and not needs.panel:
        layout = INT8_MATVEC
        arguments["groups"] = groups
    else:
        arguments["in_features"] = matrix.in_features
    return make_step(engine.kernel(kernel, *variant), layout, **arguments)

"""The derivative of a frozen product by its inputs, on the kernels."""

# T tokens, I in, O out, R rows of a weight at once

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from edgellm.errors import BackendError
from edgellm.kernels.codegen.abi import (
    MATMUL,
    PACK,
    PAIR_STEP,
    TILE,
    TURN,
    pair_scratch,
    pair_strip,
    turned_square,
)
from edgellm.kernels.codegen.weight_format import ITEM_BYTES, WeightFormat
from edgellm.kernels.kernel_engine import KernelEngine, Step, StepArray, make_step, step_array
from edgellm.kernels.product_steps import Matrix, product_steps
from edgellm.models.cpu.linear import MAX_CALL_TOKENS, kernel_matrices
from edgellm.models.linear import Linear

Floats = npt.NDArray[np.float32]

TURNED_BYTES = 8 << 20
"""Of a weight's rows as plain numbers: what the caches hold besides the products."""

_ROWS = 32
"""Blocks have a multiple of so many rows: tiles take them."""


@dataclass(frozen=True, slots=True)
class _Block:
    """Some rows of a weight, and the first of all rows that they are."""

    first: int
    matrix: Matrix


class BackwardProduct:
    """``g @ weight``, (T, O) to (T, I), of a weight (O, I) in any form of the kernels.

    Where activations are rounded and the processor adds products of bfloat16 numbers in pairs, a
    quantized weight's codes are multiplied by as they are. Else so many rows at a time are turned
    into plain numbers, and multiplied by while they are in the caches.

    Args:
        engine: the kernels.
        linear: the weight.
        turned_bytes: of its rows as plain numbers that are there at once.

    Raises:
        BackendError: there are no kernels for its form, or it has too few rows to be turned.
    """

    def __init__(
        self, engine: KernelEngine, linear: Linear, *, turned_bytes: int = TURNED_BYTES
    ) -> None:
        self._engine = engine
        # the kernels read its arrays by address, so they must live as long
        self._linear = linear
        matrices = kernel_matrices(linear)
        self._in_features = matrices[0].in_features
        # 16 bits lose nothing that tiles would keep
        self._kind = "f32"
        if engine.activations == "int8" and engine.isa.tiles:
            self._kind = "bf16"
        numbers = turned_bytes // ITEM_BYTES[self._kind]
        self._blocks = list(_blocks(matrices, numbers, self._in_pairs))
        least = min(self._in_features, *(block.matrix.out_features for block in self._blocks))
        if least < turned_square(engine.isa.lanes):
            raise BackendError(f"there are no kernels that turn {least} rows or columns")
        # of the last call: the memory's version, its tokens, its steps
        self._steps: tuple[int, int, StepArray] = (-1, -1, step_array([]))

    def __call__(self, by_output: Floats) -> Floats:
        """Return ``by_output @ weight``."""
        results = np.empty((len(by_output), self._in_features), np.float32)
        for begin in range(0, len(by_output), MAX_CALL_TOKENS):
            end = begin + MAX_CALL_TOKENS
            self._multiply(by_output[begin:end], results[begin:end])
        return results

    def _multiply(self, by_output: Floats, results: Floats) -> None:
        tokens = len(by_output)
        workspace = self._engine.workspace
        with self._engine.lock:
            steps = self._steps_of(tokens)
            inputs = workspace.buffer("hidden").array
            for block in self._blocks:
                rows = block.matrix.out_features
                own = inputs[tokens * block.first :][: tokens * rows].reshape(tokens, rows)
                own[:] = by_output[:, block.first : block.first + rows]
            self._engine.run(steps, tokens)
            results[:] = workspace.buffer("product").array[: results.size].reshape(results.shape)

    def _steps_of(self, tokens: int) -> StepArray:
        """Return the steps for derivatives in the buffer ``hidden``, block after block (T, R)."""
        workspace = self._engine.workspace
        rows = self._blocks[-1].first + self._blocks[-1].matrix.out_features
        while self._steps[:2] != (workspace.version, tokens):
            version = workspace.version
            x = workspace.reserved("hidden", 4 * tokens * rows)
            out = workspace.reserved("product", 4 * tokens * self._in_features)
            steps: list[Step] = []
            for block in self._blocks:
                source, add = x + 4 * tokens * block.first, block.first > 0
                if self._in_pairs(block.matrix):
                    steps += self._pair_steps(block.matrix, source, out, tokens=tokens, add=add)
                    continue
                turn, turned = self._turned(block.matrix)
                product = product_steps(self._engine, [turned], source, out, tokens=tokens, add=add)
                steps += [turn, *product]
            self._steps = (version, tokens, step_array(steps))
        return self._steps[2]

    def _in_pairs(self, matrix: Matrix) -> bool:
        """Return whether a weight's codes are multiplied by as they are."""
        engine, form = self._engine, matrix.format
        # of two codes one is the middle: its weights would be rounded derivatives alone
        rounded = engine.activations == "int8" and form.bits > 1
        return rounded and engine.isa.pairs and matrix.out_features % PAIR_STEP == 0

    def _pair_steps(
        self, matrix: Matrix, x: int, out: int, *, tokens: int, add: bool
    ) -> list[Step]:
        """Return the steps of ``out (+)= x @ weight``, (T, I) of (T, R) and (R, I)."""
        engine, rows = self._engine, matrix.out_features
        strip = pair_strip(matrix.format.group)
        packed = engine.workspace.reserved("packed", 4 * rows * -(-tokens // TILE) * TILE)
        engine.reserve_scratch(pair_scratch(tokens, strip))
        pack = make_step(engine.kernel("pack", "words"), PACK, source=x, target=packed, words=rows)
        product = make_step(
            engine.kernel("pair_matmul", matrix.format),
            MATMUL,
            activations=packed,
            weight=matrix.weight,
            scales=matrix.scales,
            biases=matrix.biases,
            in_features=rows,
            out_features=matrix.in_features,
            out=out,
            out_stride=4 * matrix.in_features,
            add=int(add),
            block_rows=strip,
        )
        return [pack, product]

    def _turned(self, matrix: Matrix) -> tuple[Step, Matrix]:
        """Return the step that turns a weight's rows, and the matrix (I, R) that it makes."""
        rows, columns = matrix.out_features, matrix.in_features
        target = self._engine.workspace.reserved("turned", ITEM_BYTES[self._kind] * rows * columns)
        step = make_step(
            self._engine.kernel("turn", matrix.format, self._kind),
            TURN,
            weight=matrix.weight,
            scales=matrix.scales,
            biases=matrix.biases,
            rows=rows,
            columns=columns,
            target=target,
        )
        return step, Matrix(WeightFormat(0, 0, self._kind), columns, rows, target)


def _blocks(
    matrices: list[Matrix], numbers: int, is_whole: Callable[[Matrix], bool]
) -> Iterator[_Block]:
    """Yield all rows of matrices that lie side by side, about so many numbers of one at a time."""
    first = 0
    for matrix in matrices:
        rows, columns = matrix.out_features, matrix.in_features
        count = 1 if is_whole(matrix) else -(-rows // max(2 * _ROWS, numbers // columns))
        # of about one size: a small rest would be too few rows to be turned
        ends = [round(rows * part / count / _ROWS) * _ROWS for part in range(1, count)]
        for begin, end in pairwise([0, *ends, rows]):
            yield _Block(first + begin, _rows_of(matrix, begin, end))
        first += rows


def _rows_of(matrix: Matrix, begin: int, end: int) -> Matrix:
    """Return some rows of a matrix, without what is added to its results."""
    form, columns = matrix.format, matrix.in_features
    weight = matrix.weight + begin * (columns * form.weight_bits // 8)
    if form.dense:
        return Matrix(form, end - begin, columns, weight)
    groups = begin * (columns // form.group) * form.item_bytes
    return Matrix(
        form, end - begin, columns, weight, matrix.scales + groups, matrix.biases + groups
    )

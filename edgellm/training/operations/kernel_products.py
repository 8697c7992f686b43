"""Products of plain float32 arrays on the kernels.

Their threads sleep where those of BLAS would spin.
"""

# T tokens, I in, O out, P and Q features of tokens

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgellm.kernels.codegen.abi import STRIDED_MATMUL, TURN, turned_square
from edgellm.kernels.codegen.weight_format import WeightFormat
from edgellm.kernels.kernel_engine import (
    KernelEngine,
    Step,
    float32_bits,
    make_step,
    step_array,
)
from edgellm.kernels.product_steps import Matrix, product_steps
from edgellm.models.cpu.linear import MAX_CALL_TOKENS

Floats = npt.NDArray[np.float32]

_PLAIN = WeightFormat(0, 0, "f32")

_SMALL = 1 << 22
"""Multiplications, and numbers moved, that one thread does sooner than others are awake."""


_ITEM = 64
"""Rows, and columns, of a product that a thread takes at once; half as many where they are few."""


class Product(NamedTuple):
    """``out = factor * left @ right``, (M, N) of (M, K) and (K, N), or added to ``out``.

    All three may be parts of something larger. Numbers of a row of ``right`` and of ``out`` lie one
    after the other.
    """

    out: Floats
    left: Floats
    right: Floats
    factor: float = 1.0
    add: bool = False


class KernelProducts:
    """Products on the kernels; NumPy's where there are none.

    Args:
        engine: the kernels; None: there are none.
    """

    def __init__(self, engine: KernelEngine | None) -> None:
        self._engine = engine

    def times(self, x: Floats, weight: Floats) -> Floats:
        """Return ``x @ weight.T``, (T, O) of (T, I) and (O, I)."""
        if self._engine is None:
            by_numpy: Floats = x @ weight.T
            return by_numpy
        x, weight = np.ascontiguousarray(x), np.ascontiguousarray(weight)
        product = np.empty((len(x), len(weight)), np.float32)
        matrix = Matrix(_PLAIN, len(weight), x.shape[1], weight.ctypes.data)
        for begin in range(0, len(x), MAX_CALL_TOKENS):
            self._multiply(x[begin : begin + MAX_CALL_TOKENS], matrix, product[begin:])
        return product

    def summed_over_tokens(self, left: Floats, right: Floats) -> Floats:
        """Return ``left.T @ right``, (P, Q) of (T, P) and (T, Q); best where P is small."""
        engine = self._engine
        if engine is None or min(right.shape) < turned_square(engine.isa.lanes):
            by_numpy: Floats = left.T @ right
            return by_numpy
        return self.times(left.T, self.turned(right))

    def turned(self, rows: Floats) -> Floats:
        """Return (Q, T) of (T, Q), one row after the other in memory."""
        engine = self._engine
        if engine is None or min(rows.shape) < turned_square(engine.isa.lanes):
            return np.ascontiguousarray(rows.T)
        return self._turned(engine, np.ascontiguousarray(rows))

    def compute(self, products: Sequence[Product]) -> None:
        """Compute products of parts one after the other; each may use what those before it made."""
        engine = self._engine
        if engine is None:
            for product in products:
                found = product.left @ product.right
                found *= np.float32(product.factor)
                if product.add:
                    found += product.out
                product.out[:] = found
            return
        steps = [_strided(engine, product) for product in products]
        size = sum(product.out.size * product.left.shape[1] for product in products)
        with engine.lock:
            engine.run(step_array(steps), 1, threads=1 if size <= _SMALL // 4 else None)

    def _multiply(self, x: Floats, matrix: Matrix, product: Floats) -> None:
        engine = self._engine
        assert engine is not None
        tokens = len(x)
        with engine.lock:
            version = -1
            steps: list[Step] = []
            while version != engine.workspace.version:
                version = engine.workspace.version
                steps = product_steps(
                    engine, [matrix], x.ctypes.data, product.ctypes.data, tokens=tokens
                )
            small = tokens * matrix.out_features * matrix.in_features <= _SMALL
            engine.run(step_array(steps), tokens, threads=1 if small else None)

    def _turned(self, engine: KernelEngine, rows: Floats) -> Floats:
        """Return (Q, T) of (T, Q)."""
        target = np.empty(rows.shape[::-1], np.float32)
        step = make_step(
            engine.kernel("turn", _PLAIN, "f32"),
            TURN,
            weight=rows.ctypes.data,
            rows=rows.shape[0],
            columns=rows.shape[1],
            target=target.ctypes.data,
        )
        with engine.lock:
            engine.run(step_array([step]), 1, threads=1 if 8 * rows.size <= _SMALL else None)
        return target


def _strided(engine: KernelEngine, product: Product) -> Step:
    """Return the step of a product of parts."""
    out, left, right = product.out, product.left, product.right
    (rows, summed), columns = left.shape, right.shape[1]
    assert out.strides[1] == right.strides[1] == out.itemsize, "rows are runs of memory"
    item_columns = _ITEM
    if -(-rows // _ITEM) * -(-columns // _ITEM) < 4 * engine.threads:
        item_columns //= 2
    return make_step(
        engine.kernel("strided_matmul", "add" if product.add else "set"),
        STRIDED_MATMUL,
        left=left.ctypes.data,
        left_row=left.strides[0],
        left_column=left.strides[1],
        right=right.ctypes.data,
        right_row=right.strides[0],
        out=out.ctypes.data,
        out_row=out.strides[0],
        rows=rows,
        columns=columns,
        summed=summed,
        factor=float32_bits(product.factor),
        item_rows=_ITEM,
        item_columns=item_columns,
    )

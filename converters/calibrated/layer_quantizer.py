"""A layer quantized while a text goes through it: each product when its inputs are there.

The inputs are those behind everything that is quantized already. Weights are first moved so that
from these inputs they make the outputs that the source makes from its own (as GPTAQ does: Li et al.
2025, arXiv:2504.02692), then rounded.
"""

# N tokens of the text, C columns and R rows of a matrix

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.quantization import Quantization
from edgellm.converters.calibrated.column_quantizer import ColumnQuantizer, QuantizedRows
from edgellm.converters.mixed_bits.observed_linear import multiply
from edgellm.converters.tensors.floats import Floats
from edgellm.models.linear import Tensors

MOVE_DAMPING = 0.1
"""What holds moved weights to the source's, as a share of the inputs' mean square."""

ROWS_AT_ONCE = 8192


class MatrixQuantizer:
    """Quantizes the matrices that read the same inputs.

    Args:
        inputs: of the quantized model, (N, C).
        exact_inputs: of the source for the same tokens, (N, C).
    """

    def __init__(self, inputs: Floats, exact_inputs: Floats) -> None:
        tokens = np.float32(len(inputs))
        hessian = inputs.T @ inputs / tokens
        self._columns = ColumnQuantizer(hessian)
        # W' = W + W E, where E = mean((exact - x) x^T) (H + d I)^-1
        difference = ((exact_inputs - inputs).T @ inputs / tokens).astype(np.float64)
        held: npt.NDArray[np.float64] = hessian.astype(np.float64)
        diagonal = np.einsum("ii->i", held)
        diagonal += MOVE_DAMPING * (diagonal.mean() or 1.0)
        self._move: Floats = np.linalg.solve(held, difference.T).T.astype(np.float32)

    def quantize(self, weight: mx.array, form: Quantization, dtype: str) -> QuantizedRows:
        """Return a matrix (R, C) quantized, some rows after the other."""
        pieces = []
        for begin in range(0, weight.shape[0], ROWS_AT_ONCE):
            rows = np.array(weight[begin : begin + ROWS_AT_ONCE].astype(mx.float32))
            pieces.append(self._columns.quantize(rows + rows @ self._move, form, dtype))
        return QuantizedRows(
            np.concatenate([piece.codes for piece in pieces]),
            np.concatenate([piece.scales for piece in pieces]),
            np.concatenate([piece.biases for piece in pieces]),
        )


class CapturedLinear:
    """A layer's product that keeps its inputs (N, C)."""

    def __init__(self, tensors: Tensors, members: Sequence[str]) -> None:
        self.inputs: Floats | None = None
        self._weights = [tensors[f"{member}.weight"] for member in members]
        self._biases = [tensors.get(f"{member}.bias") for member in members]

    def __call__(self, x: mx.array) -> mx.array:
        """Return ``x @ weight.T (+ bias)``."""
        self.inputs = np.array(x.astype(mx.float32))[0]
        return product(x, self._weights, self._biases)


class QuantizingLinear:
    """A layer's product that quantizes its matrices for the inputs that it is called with.

    Args:
        tensors: the layer's, named as inside the layer.
        members: the paths of its matrices there.
        forms: how they are to be stored, by these paths; the others stay as they are.
        dtype: the type of scales and biases (F16, BF16 or F32).
        exact_inputs: the source's inputs for the same tokens.
    """

    def __init__(
        self,
        tensors: Tensors,
        members: Sequence[str],
        forms: Mapping[str, Quantization],
        dtype: str,
        exact_inputs: Floats,
    ) -> None:
        self.quantized: dict[str, QuantizedRows] = {}
        self._tensors, self._members = tensors, members
        self._forms, self._dtype = forms, dtype
        self._exact_inputs = exact_inputs

    def __call__(self, x: mx.array) -> mx.array:
        """Return ``x @ weight.T (+ bias)`` of the quantized weights."""
        quantizer = MatrixQuantizer(np.array(x.astype(mx.float32))[0], self._exact_inputs)
        weights = []
        for member in self._members:
            weight, form = self._tensors[f"{member}.weight"], self._forms.get(member)
            if form is not None:
                rows = self.quantized[member] = quantizer.quantize(weight, form, self._dtype)
                weight = mx.array(rows.values())
            weights.append(weight)
        return product(x, weights, [self._tensors.get(f"{name}.bias") for name in self._members])


def product(
    x: mx.array, weights: Sequence[mx.array], biases: Sequence[mx.array | None]
) -> mx.array:
    """Return the products (1, N, R) by several matrices side by side."""
    parts = []
    for weight, bias in zip(weights, biases, strict=True):
        part = multiply(x, weight)
        if bias is not None:
            part = part + bias
        parts.append(part)
    return mx.concatenate(parts, axis=-1)

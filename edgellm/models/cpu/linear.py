"""A product with a weight on the CPU kernels, after a norm or not: MLX's arrays by address."""

# L tokens, E in

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.errors import BackendError
from edgellm.kernels.codegen.abi import MAX_EXACT_ROWS, MAX_ROWS, NORM
from edgellm.kernels.codegen.weight_format import WeightFormat
from edgellm.kernels.kernel_engine import (
    KernelEngine,
    Step,
    StepArray,
    float32_bits,
    make_step,
    step_array,
)
from edgellm.kernels.layer import Vector
from edgellm.kernels.product_steps import Matrix, product_steps
from edgellm.models.arithmetic import KERNEL_MODES, warn_slow
from edgellm.models.linear import DenseLinear, JoinedLinear, Linear, NormedLinear, QuantizedLinear

MAX_CALL_TOKENS = MAX_ROWS
"""Tokens of a call at most; the kernels' buffers are made for so many."""

KERNEL_DTYPES: Mapping[mx.Dtype, str] = {mx.float16: "f16", mx.bfloat16: "bf16", mx.float32: "f32"}
"""The types of weights, scales and norms that there are kernels for, as the kernels call them."""


class RMSNormWeight(NamedTuple):
    """The weight (E,) of an RMS norm, and what is added to the mean of squares."""

    weight: mx.array
    eps: float


class CpuLinear:
    """A weight that multiplies: (..., in) to (..., out).

    Args:
        engine: the kernels.
        linear: the weight.
        norm: of what is multiplied; None: there is none.

    Raises:
        BackendError: a weight is stored in a form that there are no kernels for.
    """

    def __init__(
        self, engine: KernelEngine, linear: Linear, norm: RMSNormWeight | None = None
    ) -> None:
        self._engine = engine
        # the kernels read their arrays by address, so they must live as long
        self._linear = linear
        self._norm = norm
        self._matrices = kernel_matrices(linear)
        self._in_features = self._matrices[0].in_features
        self.out_features: int = linear.out_features
        # of the last call: the memory's version, its tokens, its steps
        self._steps: tuple[int, int, StepArray] = (-1, -1, step_array([]))

    def part(self, first: int, stop: int) -> CpuLinear:
        """Return the product with some rows of the weight alone, where they lie."""
        linear = self._linear
        assert isinstance(linear, QuantizedLinear | DenseLinear), "others are several weights"
        return CpuLinear(self._engine, linear.part(first, stop), self._norm)

    def __call__(self, x: mx.array) -> mx.array:
        """Return ``x @ weight.T (+ bias)``, x normed where there is a norm."""
        # (..., in) -> (L, in), without a copy where x is float32
        inputs: npt.NDArray[np.float32] = np.array(x.astype(mx.float32), copy=False)
        results = self.rows(inputs.reshape(-1, self._in_features))
        return mx.array(results.reshape(*x.shape[:-1], self.out_features))

    def rows(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the product of rows (L, in), in memory of its own."""
        results = np.empty((len(inputs), self.out_features), np.float32)
        multiply = self._multiply
        if len(inputs) > MAX_EXACT_ROWS and self._norm is None:
            inputs, multiply = np.ascontiguousarray(inputs), self._multiply_in_place
        for begin in range(0, len(inputs), MAX_CALL_TOKENS):
            end = begin + MAX_CALL_TOKENS
            multiply(inputs[begin:end], results[begin:end])
        return results

    def _multiply_in_place(
        self, inputs: npt.NDArray[np.float32], results: npt.NDArray[np.float32]
    ) -> None:
        """Do the same as ``_multiply`` where rows lie: copies of many cost more than new steps."""
        engine, version = self._engine, -1
        x, out, tokens = inputs.ctypes.data, results.ctypes.data, len(inputs)
        with engine.lock:
            while version != engine.workspace.version:
                version = engine.workspace.version
                steps = product_steps(engine, self._matrices, x, out, tokens=tokens)
            engine.run(step_array(steps), tokens)

    def _multiply(self, inputs: npt.NDArray[np.float32], results: npt.NDArray[np.float32]) -> None:
        """Compute ``results`` (L, out) of inputs (L, in), at most MAX_CALL_TOKENS of them."""
        tokens = len(inputs)
        workspace = self._engine.workspace
        with self._engine.lock:
            steps = self.steps(tokens)
            workspace.buffer("hidden").array[: inputs.size] = inputs.ravel()
            self._engine.run(steps, tokens)
            # copied while the lock is held: the next call, of whichever model, writes here
            results[:] = self.product(tokens)

    def product(self, tokens: int) -> npt.NDArray[np.float32]:
        """Return what the steps have computed (L, out), until the engine's next call."""
        product = self._engine.workspace.buffer("product").array[: tokens * self.out_features]
        return product.reshape(tokens, self.out_features)

    def steps(self, tokens: int) -> StepArray:
        """Return the steps for this many tokens in the engine's buffer ``hidden`` (L, in).

        They are made again where the last call was for another number or memory has moved, which
        making them may do itself.
        """
        workspace = self._engine.workspace
        while self._steps[:2] != (workspace.version, tokens):
            version = workspace.version
            x = workspace.reserved("hidden", 4 * tokens * self._in_features)
            product = workspace.reserved("product", 4 * tokens * self.out_features)
            steps = []
            if self._norm is not None:
                normed = workspace.reserved("normed", 4 * tokens * self._in_features)
                steps.append(self._norm_step(self._norm, x, normed))
                x = normed
            steps += product_steps(self._engine, self._matrices, x, product, tokens=tokens)
            self._steps = (version, tokens, step_array(steps))
        return self._steps[2]

    def _norm_step(self, norm: RMSNormWeight, x: int, out: int) -> Step:
        weight = kernel_vector(norm.weight)
        return make_step(
            self._engine.kernel("norm", weight.kind),
            NORM,
            x=x,
            weight=weight.address,
            out=out,
            hidden=self._in_features,
            row_bytes=4 * self._in_features,
            eps=float32_bits(norm.eps),
        )


def make_linear(kernels: KernelEngine | None, linear: Linear) -> Linear:
    """Return a product on the kernels where they can, else (with one warning) as it is."""
    if kernels is not None:
        try:
            return CpuLinear(kernels, linear)
        except BackendError as error:
            warn_slow(error.message)
    return linear


def make_head(
    kernels: KernelEngine | None,
    linear: Linear,
    weight: RMSNormWeight,
    norm: Callable[[mx.array], mx.array],
) -> Linear:
    """Return the product of normed states, as ``make_linear`` does.

    Args:
        kernels, linear: as ``make_linear`` has them.
        weight: of the norm, for the kernels.
        norm: the same norm in MLX.
    """
    if kernels is not None:
        try:
            return CpuLinear(kernels, linear, weight)
        except BackendError as error:
            warn_slow(error.message)
    return NormedLinear(norm, linear)


def kernel_vector(array: mx.array) -> Vector:
    """Return a norm's weight as the kernels take it. Raises BackendError."""
    return Vector(address(array), _dtype_name(array))


def kernel_matrices(linear: Linear) -> list[Matrix]:
    """Return the matrices of a product as the kernels take them, side by side.

    Raises:
        BackendError: one is stored in a form that there are no kernels for.
    """
    if isinstance(linear, JoinedLinear):
        return [matrix for member in linear.members for matrix in kernel_matrices(member)]
    if not isinstance(linear, QuantizedLinear | DenseLinear):
        raise BackendError(f"there are no kernels for a {type(linear).__name__}")
    bias, bias_kind = 0, "f32"
    if linear.bias is not None:
        bias, bias_kind = address(linear.bias), _dtype_name(linear.bias)
    weight = address(linear.weight)
    if isinstance(linear, DenseLinear):
        rows, columns = linear.weight.shape
        dense = WeightFormat(0, 0, _dtype_name(linear.weight))
        return [Matrix(dense, rows, columns, weight, bias=bias, bias_kind=bias_kind)]
    quantization = linear.quantization
    if quantization.mode not in KERNEL_MODES or linear.biases is None:
        raise BackendError(f"there are no kernels for the mode {quantization.mode}")
    packed = WeightFormat(quantization.bits, quantization.group_size, _dtype_name(linear.scales))
    columns = linear.scales.shape[1] * quantization.group_size
    scales, biases = address(linear.scales), address(linear.biases)
    return [Matrix(packed, linear.out_features, columns, weight, scales, biases, bias, bias_kind)]


def address(array: mx.array) -> int:
    """Return where an array's memory begins; NumPy, which has no bfloat16, sees it as bytes."""
    view = array.view(mx.uint8)
    mx.eval(view)
    return int(np.array(view, copy=False).ctypes.data)


def _dtype_name(array: mx.array) -> str:
    name = KERNEL_DTYPES.get(array.dtype)
    if name is None:
        raise BackendError(f"there are no kernels for weights of {array.dtype}")
    return name

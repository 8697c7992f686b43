"""Multiplication by a weight, whatever the chip and however the weight is stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import mlx.core as mx

from edgellm.checkpoint.quantization import Quantization
from edgellm.checkpoint.tensor_order import STACKS

Tensors = Mapping[str, mx.array]
QuantizationOf = Callable[[str], Quantization | None]


class Linear(Protocol):
    """A weight that multiplies: (..., in) to (..., out)."""

    rows: int

    def __call__(self, x: mx.array) -> mx.array:
        """Return ``x @ weight.T (+ bias)``."""
        ...


class DenseLinear:
    """A weight (out, in) of floating-point numbers."""

    def __init__(self, weight: mx.array, bias: mx.array | None = None) -> None:
        self.weight, self.bias = weight, bias
        self.rows = weight.shape[0]

    def __call__(self, x: mx.array) -> mx.array:
        """Return ``x @ weight.T (+ bias)``."""
        y = x @ self.weight.T
        return y if self.bias is None else y + self.bias


class QuantizedLinear:
    """A weight of MLX's packed codes; scales (out, in / group), and for the affine mode biases alike."""

    def __init__(
        self,
        weight: mx.array,
        scales: mx.array,
        biases: mx.array | None,
        quantization: Quantization,
        bias: mx.array | None = None,
    ) -> None:
        self.weight, self.scales, self.biases, self.bias = weight, scales, biases, bias
        self.quantization = quantization
        self.rows = weight.shape[0]

    def __call__(self, x: mx.array) -> mx.array:
        """Return ``x @ weight.T (+ bias)``."""
        y = mx.quantized_matmul(
            x,
            self.weight,
            scales=self.scales,
            biases=self.biases,
            transpose=True,
            group_size=self.quantization.group_size,
            bits=self.quantization.bits,
            mode=self.quantization.mode,
        )
        return y if self.bias is None else y + self.bias

    def dequantized(self, rows: mx.array, dtype: mx.Dtype) -> mx.array:
        """The rows of these numbers as ``dtype``; affine codes are scaled in float32, since 16 bits would round."""
        scales, biases = self.scales[rows], None
        if self.biases is not None:
            scales, biases = scales.astype(mx.float32), self.biases[rows].astype(mx.float32)
        plain = mx.dequantize(
            self.weight[rows],
            scales,
            biases,
            group_size=self.quantization.group_size,
            bits=self.quantization.bits,
            mode=self.quantization.mode,
        )
        return plain.astype(dtype)


class JoinedLinear:
    """Weights with the same input that are stored in different ways; their results stand side by side."""

    def __init__(self, parts: Sequence[Linear]) -> None:
        self.parts = tuple(parts)
        self.rows = sum(part.rows for part in parts)

    def __call__(self, x: mx.array) -> mx.array:
        """Return the parts' results, joined along the last axis."""
        return mx.concatenate([part(x) for part in self.parts], axis=-1)


def linear_from(
    tensors: Tensors, name: str, quantization: Quantization | None
) -> DenseLinear | QuantizedLinear:
    """The weight ``name`` of some tensors."""
    weight, bias = tensors[f"{name}.weight"], tensors.get(f"{name}.bias")
    if quantization is None:
        return DenseLinear(weight, bias)
    return QuantizedLinear(
        weight, tensors[f"{name}.scales"], tensors.get(f"{name}.biases"), quantization, bias
    )


def stacked_linear(tensors: Tensors, stack: str, quantization_of: QuantizationOf) -> Linear:
    """A stack of ``layout.STACKS`` as one product, or joined from its members where they are stored differently."""
    members = STACKS[stack]
    kinds = {quantization_of(member) for member in members}
    parts = {
        part
        for member in members
        for part in ("weight", "scales", "biases", "bias")
        if f"{member}.{part}" in tensors
    }
    if len(members) == 1:
        return linear_from(tensors, stack, quantization_of(stack))
    if len(kinds) == 1 and all(f"{stack}.{part}" in tensors for part in parts):
        return linear_from(tensors, stack, kinds.pop())
    return JoinedLinear(
        [linear_from(tensors, member, quantization_of(member)) for member in members]
    )

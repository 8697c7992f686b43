"""Multiplication by a weight in MLX, dense or quantized, one matrix or several side by side."""

# I in, O out, R rank

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx

from edgellm.checkpoint.quantization import Quantization
from edgellm.checkpoint.tensor_order import LINEAR_PARTS, STACKS

Tensors = Mapping[str, mx.array]
"""Tensors by name."""

QuantizationOf = Callable[[str], Quantization | None]
"""Says how a matrix is stored, by its name; None: unquantized."""


class Linear(Protocol):
    """A weight that multiplies: (..., in) to (..., out)."""

    out_features: int

    def __call__(self, x: mx.array) -> mx.array:
        """Return ``x @ weight.T (+ bias)``."""
        ...


class DenseLinear:
    """A weight (out, in) of floating-point numbers."""

    def __init__(self, weight: mx.array, bias: mx.array | None = None) -> None:
        self.weight = weight
        self.bias = bias
        self.out_features: int = weight.shape[0]

    def __call__(self, x: mx.array) -> mx.array:
        """Return ``x @ weight.T (+ bias)``."""
        return _plus(x @ self.weight.T, self.bias)

    def part(self, first: int, stop: int) -> DenseLinear:
        """Return some rows of it, in the same memory."""
        return DenseLinear(self.weight[first:stop], _some(self.bias, first, stop))

    def rows_at(self, indices: mx.array, dtype: mx.Dtype) -> mx.array:
        """Return the rows (..., in) at ``indices`` (...) as ``dtype``."""
        return self.weight[indices].astype(dtype)


class QuantizedLinear:
    """A weight (out, in) of MLX's packed codes.

    Args:
        weight: codes (out, in * bits / 32) of uint32.
        scales: (out, in / group).
        biases: of the affine mode, shaped as ``scales``; None in other modes.
        quantization: how codes become numbers.
        bias: (out,), added to the product.
    """

    def __init__(
        self,
        weight: mx.array,
        scales: mx.array,
        biases: mx.array | None,
        quantization: Quantization,
        bias: mx.array | None = None,
    ) -> None:
        self.weight = weight
        self.scales = scales
        self.biases = biases
        self.bias = bias
        self.quantization = quantization
        self._form = quantization.as_config()  # named as MLX names its arguments
        self.out_features: int = weight.shape[0]

    def __call__(self, x: mx.array) -> mx.array:
        """Return ``x @ weight.T (+ bias)``."""
        product = mx.quantized_matmul(
            x, self.weight, scales=self.scales, biases=self.biases, transpose=True, **self._form
        )
        return _plus(product, self.bias)

    def part(self, first: int, stop: int) -> QuantizedLinear:
        """Return some rows of it, in the same memory."""
        return QuantizedLinear(
            self.weight[first:stop],
            self.scales[first:stop],
            _some(self.biases, first, stop),
            self.quantization,
            _some(self.bias, first, stop),
        )

    def rows_at(self, indices: mx.array, dtype: mx.Dtype) -> mx.array:
        """Return the dequantized rows (..., in) at ``indices`` (...) as ``dtype``."""
        scales = self.scales[indices]
        biases = None
        if self.biases is not None:
            # affine codes are scaled in float32, since 16 bits would round
            scales = scales.astype(mx.float32)
            biases = self.biases[indices].astype(mx.float32)
        rows = mx.dequantize(self.weight[indices], scales, biases, **self._form)
        return rows.astype(dtype)


class JoinedLinear:
    """Weights with the same input that are stored in different ways; results stand side by side."""

    def __init__(self, members: Sequence[Linear]) -> None:
        self.members: tuple[Linear, ...] = tuple(members)
        self.out_features: int = sum(member.out_features for member in members)

    def __call__(self, x: mx.array) -> mx.array:
        """Return the members' products, joined along the last axis."""
        return mx.concatenate([member(x) for member in self.members], axis=-1)


@dataclass(frozen=True, slots=True, eq=False)
class AddedProduct:
    """A product that is added to some results of another: ``(x @ down.T) @ up.T``.

    That is what an adapter changes (Hu et al. 2021, LoRA, arXiv:2106.09685).

    Attributes:
        first: the first of those results.
        down: (R, I).
        up: (O, R), its scale included.
    """

    first: int
    down: mx.array
    up: mx.array

    @property
    def stop(self) -> int:
        """The result behind the last one that it is added to."""
        return self.first + int(self.up.shape[0])


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """Factors of a product's results: ``factors * (result - bias) + bias``.

    That is how DoRA gives rows lengths of their own (Liu et al. 2024, arXiv:2402.09353).

    Attributes:
        factors: (O,), float32; 1 where a result stays.
        rest: (O,), what the bias is more than its share, float32; None: there is no bias.
    """

    factors: mx.array
    rest: mx.array | None = None

    def __call__(self, results: mx.array) -> mx.array:
        """Return results (..., O) multiplied, in their own type."""
        stretched = results.astype(mx.float32) * self.factors
        if self.rest is not None:
            stretched = stretched + self.rest
        return stretched.astype(results.dtype)


class ChangedLinear:
    """A weight that multiplies; products that are added to its results, and their factors."""

    def __init__(
        self, base: Linear, added: Sequence[AddedProduct], stretch: Stretch | None = None
    ) -> None:
        self.base = base
        self.out_features: int = base.out_features
        self._added = added
        self._stretch = stretch

    def __call__(self, x: mx.array) -> mx.array:
        """Return what the weight alone returns, and what is added."""
        results = self.base(x)
        for product in self._added:
            change = (x @ product.down.T) @ product.up.T
            if product.stop - product.first == self.out_features:
                results = results + change
            else:
                results = results.at[..., product.first : product.stop].add(change)
        if self._stretch is not None:
            results = self._stretch(results)
        return results


def changed_linear(
    linear: Linear, added: Sequence[AddedProduct], stretch: Stretch | None = None
) -> Linear:
    """Return a product with these added, and multiplied; what it had before is gone."""
    if isinstance(linear, ChangedLinear):
        linear = linear.base
    if not added and stretch is None:
        return linear
    return ChangedLinear(linear, added, stretch)


class NormedLinear:
    """A weight that multiplies what was normed before."""

    def __init__(self, norm: Callable[[mx.array], mx.array], linear: Linear) -> None:
        self._norm = norm
        self._linear = linear
        self.out_features: int = linear.out_features

    def __call__(self, x: mx.array) -> mx.array:
        """Return ``norm(x) @ weight.T (+ bias)``."""
        return self._linear(self._norm(x))


def linear_from(
    tensors: Tensors, name: str, quantization: Quantization | None
) -> DenseLinear | QuantizedLinear:
    """Return the matrix ``name`` (``name.weight``, ``name.scales``, ...) of some tensors."""
    weight, bias = tensors[f"{name}.weight"], tensors.get(f"{name}.bias")
    if quantization is None:
        return DenseLinear(weight, bias)
    return QuantizedLinear(
        weight, tensors[f"{name}.scales"], tensors.get(f"{name}.biases"), quantization, bias
    )


def stacked_linear(tensors: Tensors, stack: str, quantization_of: QuantizationOf) -> Linear:
    """Return a stack of ``tensor_order.STACKS`` as one product.

    Where its members are stored differently, or do not lie side by side, the product is joined from
    theirs.
    """
    members = STACKS[stack]
    if len(members) == 1:
        return linear_from(tensors, stack, quantization_of(stack))
    forms = {quantization_of(member) for member in members}
    parts = [
        part for part in LINEAR_PARTS if any(f"{member}.{part}" in tensors for member in members)
    ]
    # A buffer shows a part under the stack's name only where the members' bytes are one matrix.
    if len(forms) == 1 and all(f"{stack}.{part}" in tensors for part in parts):
        return linear_from(tensors, stack, forms.pop())
    return JoinedLinear(
        [linear_from(tensors, member, quantization_of(member)) for member in members]
    )


def _some(rows: mx.array | None, first: int, stop: int) -> mx.array | None:
    return None if rows is None else rows[first:stop]


def _plus(product: mx.array, bias: mx.array | None) -> mx.array:
    return product if bias is None else product + bias

"""A frozen product whose parts have low-rank changes, which are arguments of each call."""

# T tokens of all sequences, I in, O out, R rank

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.device import machine as device
from edgellm.kernels.kernel_engine import KernelEngine
from edgellm.models.linear import Linear
from edgellm.training.operations.kernel_products import KernelProducts
from edgellm.training.operations.products import backwards_by, forwards_by
from edgellm.training.operations.row_lengths import bias_of, length_factors, row_squares

Floats = npt.NDArray[np.float32]

Kept = Mapping[str, mx.array]
"""For each target, what its inputs (1, T, I) are multiplied by: 0 where one is dropped."""


class _Member(NamedTuple):
    """A member that is changed: its columns of all results, and what its inputs are kept by.

    ``scale`` is what its change is multiplied by.
    """

    columns: slice
    kept: Floats | None
    scale: np.float32


class AdaptedProduct:
    """A frozen product of a stack, and changes of its members.

    Args:
        linear: the product.
        kernels: compute it; None where MLX does.
        members: names of the matrices whose results stand side by side, with the features of each.
    """

    def __init__(
        self, linear: Linear, kernels: KernelEngine | None, members: Mapping[str, int]
    ) -> None:
        self.out_features: int = sum(members.values())
        self.members: Mapping[str, int] = members
        self.change: Mapping[str, mx.array] = {}
        self.kept: Kept = {}
        # what each member's change is multiplied by
        self.scales: Mapping[str, float] = {}
        # of members' rows, whose lengths are learned; none: they are not
        self.row_squares: Mapping[str, mx.array] = {}
        # of the call that a layer computes again; None: everything is computed anew
        self.result: list[mx.array] | None = None
        self._linear = linear
        self._plain = KernelProducts(kernels)
        if not device.has_gpu():
            self._forwards, self._backwards = (
                forwards_by(linear, kernels),
                backwards_by(linear, kernels),
            )

    def __call__(self, x: mx.array) -> mx.array:
        """Return ``x @ weight.T + scale * (x @ A.T) @ B.T``, of each member that is changed.

        Where ``row_squares`` are there, the rows of what ``x`` is multiplied by have the lengths
        that are learned.
        """
        y = self._by_mlx(x) if device.has_gpu() else self._by_kernels(x)
        if not self.row_squares or not any(
            f"{name}.lora_A" in self.change for name in self.members
        ):
            return y
        factors = length_factors(
            self._multiply,
            self.members,
            self.change,
            scales=self.scales,
            squares=self.row_squares,
        ).astype(y.dtype)
        bias = bias_of(self._linear)
        if bias is None:
            return factors * y
        bias = bias.astype(y.dtype)
        return factors * (y - bias) + bias

    def squares(self) -> dict[str, mx.array]:
        """Return the squared lengths of each member's rows (O,)."""
        return row_squares(self._linear, self.members)

    def _multiply(self, x: mx.array) -> mx.array:
        """Return (R, I) by the transposed weight, without its bias: (R, O)."""
        if device.has_gpu():
            y = self._linear(x)
        else:
            y = mx.array(self._forwards(_rows(x)))
        bias = bias_of(self._linear)
        return y if bias is None else y - bias.astype(y.dtype)

    def _by_kernels(self, x: mx.array) -> mx.array:
        changed, numbers, begin = [], [], 0
        for member, features in self.members.items():
            columns = slice(begin, begin := begin + features)
            if f"{member}.lora_A" not in self.change:
                continue
            numbers += [self.change[f"{member}.lora_{part}"] for part in "AB"]
            kept = self.kept.get(member)
            scale = np.float32(self.scales[member])
            changed.append(_Member(columns, None if kept is None else _rows(kept), scale))
        result = self.result

        @mx.custom_function
        def product(x: mx.array, *numbers: mx.array) -> mx.array:
            if result:
                return result[0]
            y = mx.array(self._product(_rows(x), changed, numbers).reshape(*x.shape[:-1], -1))
            if result is not None:
                result.append(y)
            return y

        @product.vjp
        def product_vjp(
            primals: mx.array | tuple[mx.array, ...], gradient: mx.array, _: mx.array
        ) -> tuple[mx.array, ...]:
            # an only argument comes without a tuple
            x, *numbers = (primals,) if isinstance(primals, mx.array) else primals
            by_x, by_numbers = self._derivatives(_rows(x), changed, numbers, _rows(gradient))
            return (mx.array(by_x.reshape(x.shape)), *map(mx.array, by_numbers))

        return cast(mx.array, product(x, *numbers))

    def _product(self, x: Floats, changed: list[_Member], numbers: tuple[mx.array, ...]) -> Floats:
        y = self._forwards(x)
        for member, a, b in zip(changed, numbers[::2], numbers[1::2], strict=True):
            low = self._plain.times(_seen(x, member), _rows(a))
            low *= member.scale
            y[:, member.columns] += self._plain.times(low, _rows(b))
        return y

    def _derivatives(
        self, x: Floats, changed: list[_Member], numbers: list[mx.array], by_output: Floats
    ) -> tuple[Floats, list[Floats]]:
        """Return derivatives by ``x`` and by each A and B."""
        by_x = self._backwards(by_output)
        by_numbers: list[Floats] = []
        for member, a, b in zip(changed, numbers[::2], numbers[1::2], strict=True):
            own, down, up = by_output[:, member.columns], _rows(a), _rows(b)
            seen = _seen(x, member)
            low = self._plain.times(seen, down)
            low *= member.scale
            by_b = self._plain.summed_over_tokens(low, own).T
            by_low = self._plain.times(own, up.T)
            by_low *= member.scale
            by_numbers += [self._plain.summed_over_tokens(by_low, seen), by_b]
            by_seen = self._plain.times(by_low, down.T)
            if member.kept is not None:
                by_seen *= member.kept
            by_x += by_seen
        return by_x, by_numbers

    def _by_mlx(self, x: mx.array) -> mx.array:
        y = self._linear(x)
        if not any(f"{member}.lora_A" in self.change for member in self.members):
            return y
        parts = []
        for member, features in self.members.items():
            a = self.change.get(f"{member}.lora_A")
            if a is None:
                parts.append(mx.zeros((*x.shape[:-1], features), y.dtype))
                continue
            seen = x
            if member in self.kept:
                seen = x * self.kept[member].astype(x.dtype)
            low = seen @ a.astype(x.dtype).T
            parts.append(
                low @ self.change[f"{member}.lora_B"].astype(x.dtype).T * self.scales[member]
            )
        change = parts[0]
        if len(parts) > 1:
            change = mx.concatenate(parts, axis=-1)
        return y + change


def _seen(x: Floats, member: _Member) -> Floats:
    """Return the inputs that dropout leaves a change."""
    if member.kept is None:
        return x
    return x * member.kept


def _rows(array: mx.array) -> Floats:
    """Return (..., I) as (T, I)."""
    values: Floats = np.array(array.astype(mx.float32), copy=False)
    return values.reshape(-1, array.shape[-1])

"""A frozen product whose parts have low-rank changes, which are arguments of each call."""

# T tokens of all sequences, I in, O out, R rank

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.device import machine as device
from edgellm.kernels.kernel_engine import KernelEngine
from edgellm.models.linear import Linear
from edgellm.training.operations.kernel_products import KernelProducts, Product
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
    scale: float


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

    @property
    def is_changed(self) -> bool:
        """Whether a member is changed."""
        return bool(self._names())

    def rows(self, x: Floats) -> Floats:
        """Return the product of rows (T, I), where nothing learns lengths."""
        return self._product(x, self._changed(), self._numbers())

    def derivatives(self, x: Floats | None, by_output: Floats) -> tuple[Floats, dict[str, Floats]]:
        """Return derivatives by ``x`` and by each number, of those by what ``rows`` returned.

        Args:
            x: rows (T, I); None will do where no member is changed.
            by_output: (T, O).
        """
        if x is None:
            assert not self.is_changed, "derivatives by numbers need what they multiplied"
            return self._backwards(by_output), {}
        by_x, by_numbers = self._derivatives(x, self._changed(), self._numbers(), by_output)
        return by_x, dict(zip(self._names(), by_numbers, strict=True))

    def _by_kernels(self, x: mx.array) -> mx.array:
        changed, result = self._changed(), self.result

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

        return cast(mx.array, product(x, *self._numbers()))

    def _changed(self) -> list[_Member]:
        """Return the members that are changed."""
        changed, begin = [], 0
        for member, features in self.members.items():
            columns = slice(begin, begin := begin + features)
            if f"{member}.lora_A" not in self.change:
                continue
            kept = self.kept.get(member)
            seen = None if kept is None else _rows(kept)
            changed.append(_Member(columns, seen, self.scales[member]))
        return changed

    def _names(self) -> list[str]:
        """Return the names of their numbers: A and B of each."""
        names = [f"{member}.lora_{part}" for member in self.members for part in "AB"]
        return [name for name in names if name in self.change]

    def _numbers(self) -> list[mx.array]:
        return [self.change[name] for name in self._names()]

    def _product(self, x: Floats, changed: list[_Member], numbers: Sequence[mx.array]) -> Floats:
        y = self._forwards(x)
        for inputs in _inputs(x, changed, numbers):
            products = [inputs.low_product()]
            for part in inputs.parts:
                up = np.ascontiguousarray(part.up.T)
                own = y[:, part.member.columns]
                products.append(Product(own, part.low, up, part.member.scale, add=True))
            self._plain.compute(products)
        return y

    def _derivatives(
        self, x: Floats, changed: list[_Member], numbers: Sequence[mx.array], by_output: Floats
    ) -> tuple[Floats, list[Floats]]:
        """Return derivatives by ``x`` and by each A and B."""
        by_x = self._backwards(by_output)
        by_numbers: list[Floats] = []
        for inputs in _inputs(x, changed, numbers):
            kept = inputs.kept
            by_low, by_down = np.empty_like(inputs.low), np.empty_like(inputs.downs)
            by_ups = []
            products = [inputs.low_product()]
            for part in inputs.parts:
                own, scale = by_output[:, part.member.columns], part.member.scale
                by_up = np.empty(part.up.shape[::-1], np.float32)
                products.append(Product(by_low[:, part.ranks], own, part.up, scale))
                products.append(Product(by_up, part.low.T, own, scale))
                by_ups.append(by_up.T)
            products.append(Product(by_down, by_low.T, inputs.seen))
            by_seen = by_x if kept is None else np.empty_like(x)
            products.append(Product(by_seen, by_low, inputs.downs, add=kept is None))
            self._plain.compute(products)
            if kept is not None:
                by_seen *= kept
                by_x += by_seen
            for part, by_up in zip(inputs.parts, by_ups, strict=True):
                by_numbers += [by_down[part.ranks], by_up]
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


class _Part(NamedTuple):
    """A member's share of what is computed of the same inputs: its ranks among all of them."""

    member: _Member
    ranks: slice
    low: Floats
    up: Floats


@dataclass(frozen=True, slots=True)
class _Inputs:
    """Inputs (T, I) that changes see alike, and their products by the downs, (T, all R).

    ``downs`` (all R, I) lie one after the other.
    """

    seen: Floats
    kept: Floats | None
    downs: Floats
    low: Floats
    parts: list[_Part]

    def low_product(self) -> Product:
        """Return the product that makes ``low``."""
        return Product(self.low, self.seen, np.ascontiguousarray(self.downs.T))


def _inputs(x: Floats, changed: list[_Member], numbers: Sequence[mx.array]) -> Iterator[_Inputs]:
    """Yield what members see: all the same, unless dropout leaves each something else."""
    pairs = list(zip(changed, numbers[::2], numbers[1::2], strict=True))
    together = (
        [pairs] if all(member.kept is None for member in changed) else [[pair] for pair in pairs]
    )
    for some in filter(None, together):
        downs = np.concatenate([_rows(down) for _, down, _ in some])
        low = np.empty((len(x), len(downs)), np.float32)
        parts, begin = [], 0
        for member, down, up in some:
            ranks = slice(begin, begin := begin + len(down))
            parts.append(_Part(member, ranks, low[:, ranks], _rows(up)))
        kept = some[0][0].kept
        yield _Inputs(x if kept is None else x * kept, kept, downs, low, parts)


def _rows(array: mx.array) -> Floats:
    """Return (..., I) as (T, I)."""
    values: Floats = np.array(array.astype(mx.float32), copy=False)
    return values.reshape(-1, array.shape[-1])

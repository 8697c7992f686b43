"""An adapter's changes of layers or rows, as they go to the machine that has these."""

# O out, R rank

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from edgellm.checkpoint.model_config import ModelConfig
from edgellm.checkpoint.tensor_order import STACKS
from edgellm.distributed.parts.rows import Bounds, RowShare, matrix_rows
from edgellm.distributed.parts.wire import packed, unpacked
from edgellm.models.layers import LayerChange
from edgellm.models.linear import AddedProduct, Stretch


@dataclass(frozen=True, slots=True)
class GivenChanges:
    """Changes that have been read already, of some layers."""

    layers: Sequence[LayerChange]

    def layer_changes(self, _dtype: mx.Dtype) -> Sequence[LayerChange]:
        """Return them; they are of the type that arithmetic has."""
        return self.layers


def changes_bytes(changes: Sequence[LayerChange]) -> int:
    """Return the bytes of changes in memory."""
    return sum(array.nbytes for change in changes for array in change.arrays())


def changes_of_rows(
    changes: Sequence[LayerChange], config: ModelConfig, share: RowShare
) -> list[LayerChange]:
    """Return what an adapter changes in a machine's rows of each layer.

    Each product keeps all of ``down``, which every machine multiplies with, and those rows of
    ``up`` whose results are computed there: the same steps as with all of them. Nothing is copied.

    Args:
        changes: of whole layers.
        config: of the whole model.
        share: the rows.
    """
    rows = matrix_rows(config, share)
    heights = {
        name.removesuffix(".weight"): shape[0] for name, shape in config.tensor_shapes().items()
    }
    return [_change_of_rows(change, rows, heights) for change in changes]


def _change_of_rows(
    change: LayerChange, rows: Mapping[str, Bounds], heights: Mapping[str, int]
) -> LayerChange:
    products: dict[str, list[AddedProduct]] = {}
    stretches = {}
    for stack, members in STACKS.items():
        # of a stack's results, where those of a member begin: of the whole one, and here
        begins, own_begins = [0], [0]
        for member in members:
            first, stop = rows[member]
            begins.append(begins[-1] + heights[member])
            own_begins.append(own_begins[-1] + stop - first)
        for product in change.products.get(stack, ()):
            place = begins.index(product.first)  # it is of one matrix
            first, stop = rows[members[place]]
            own = AddedProduct(own_begins[place], product.down, product.up[first:stop])
            products.setdefault(stack, []).append(own)
        stretch = change.stretches.get(stack)
        if stretch is not None:
            parts = [
                (begin + rows[member][0], begin + rows[member][1])
                for begin, member in zip(begins, members, strict=False)
            ]
            rest = stretch.rest
            stretches[stack] = Stretch(
                _joined(stretch.factors, parts), None if rest is None else _joined(rest, parts)
            )
    return LayerChange(products, stretches)


def _joined(numbers: mx.array, parts: Sequence[Bounds]) -> mx.array:
    return mx.concatenate([numbers[first:stop] for first, stop in parts])


def packed_changes(changes: Sequence[LayerChange]) -> tuple[dict[str, Any], list[memoryview]]:
    """Return what changes are of, and the bytes of their numbers."""
    shapes, parts = packed([array for change in changes for array in change.arrays()])
    layers = [
        {
            "products": {
                stack: [product.first for product in added]
                for stack, added in change.products.items()
            },
            "stretches": {
                stack: stretch.rest is not None for stack, stretch in change.stretches.items()
            },
        }
        for change in changes
    ]
    return {"layers": layers, "arrays": shapes}, parts


def unpacked_changes(told: dict[str, Any], body: memoryview) -> list[LayerChange]:
    """Return changes as ``packed_changes`` was given them, bit for bit."""
    arrays = unpacked(told["arrays"], body)
    mx.eval(arrays)
    left = iter(arrays)
    return [
        LayerChange(
            {
                stack: [AddedProduct(int(first), next(left), next(left)) for first in firsts]
                for stack, firsts in layer["products"].items()
            },
            {
                stack: Stretch(next(left), next(left) if has_rest else None)
                for stack, has_rest in layer["stretches"].items()
            },
        )
        for layer in told["layers"]
    ]

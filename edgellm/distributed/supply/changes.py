"""An adapter's changes of layers, as they go to the machine that has these layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx

from edgellm.distributed.parts.wire import packed, unpacked
from edgellm.models.layers import LayerChange
from edgellm.models.linear import AddedProduct, Stretch
from edgellm.settings import LoadSettings


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


def without_memory(settings: LoadSettings, nbytes: int) -> LoadSettings:
    """Return settings whose budget, which is in bytes, has room for so much else."""
    assert isinstance(settings.memory, int), "it is chosen before machines are asked"
    return replace(settings, memory=max(1, settings.memory - nbytes))


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

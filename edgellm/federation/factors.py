"""An adapter's factors as one row of numbers, in an order that both sides know."""

# I in, O out, R rank

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import mlx.core as mx
import numpy as np

from edgellm.checkpoint.model_config import ModelConfig
from edgellm.converters.tensors.floats import Floats
from edgellm.errors import FormatError
from edgellm.training.low_rank import Change, LoraSettings, first_changed

DOWN, UP = "lora_A", "lora_B"
"""The factors of a change: (R, I), and (O, R)."""

Numbers = list[dict[str, Floats]]
"""The factors of each layer, by their names."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each factor lies in a row.

    Attributes:
        layers: of the model.
        places: layer, name and shape of each factor, in the order of the row.
    """

    layers: int
    places: tuple[tuple[int, str, tuple[int, int]], ...]

    @property
    def size(self) -> int:
        """How many numbers a row has."""
        return sum(prod(shape) for _, _, shape in self.places)

    def only(self, factor: str) -> Layout:
        """Return the layout of one kind of factor alone."""
        return Layout(self.layers, tuple(one for one in self.places if one[1].endswith(factor)))

    def row_of(self, numbers: Sequence[dict[str, Floats]]) -> Floats:
        """Return factors as a row, in float32."""
        parts = [
            np.asarray(numbers[layer][name], dtype=np.float32).ravel()
            for layer, name, _ in self.places
        ]
        return np.concatenate(parts)

    def numbers_of(self, row: Floats, sender: str) -> Numbers:
        """Return the factors in a row.

        Args:
            row: of float32.
            sender: who it came from, for errors.

        Raises:
            FormatError: it has another length or type, or a number that is not finite.
        """
        if row.dtype != np.float32 or row.shape != (self.size,):
            raise FormatError(
                f"{sender} sent {row.size} numbers of {row.dtype}, where {self.size} of float32 "
                "belong",
                hint="use the same version of edgellm and the same model on all machines",
            )
        if not np.isfinite(row).all():
            raise FormatError(
                f"{sender} sent a number that is infinite or none",
                hint="learn with a smaller --rate",
            )
        numbers: Numbers = [{} for _ in range(self.layers)]
        begin = 0
        for layer, name, shape in self.places:
            end = begin + prod(shape)
            numbers[layer][name] = row[begin:end].reshape(shape)
            begin = end
        return numbers


def layout_of(config: ModelConfig, lora: LoraSettings) -> Layout:
    """Return the layout of a model's adapters. Raises ConfigError."""
    shapes = config.tensor_shapes()
    places = []
    count = config.num_hidden_layers
    for layer in range(first_changed(lora, count), count):
        for target in lora.targets:
            rank = lora.rank_of(layer, target)
            if not rank:
                continue
            out_features, in_features = shapes[f"{target}.weight"]
            places.append((layer, f"{target}.{DOWN}", (rank, in_features)))
            places.append((layer, f"{target}.{UP}", (out_features, rank)))
    return Layout(count, tuple(places))


def as_floats(changes: Sequence[Change]) -> Numbers:
    """Return numbers of MLX in NumPy."""
    return [{name: np.array(array) for name, array in change.items()} for change in changes]


def as_changes(numbers: Sequence[dict[str, Floats]]) -> list[Change]:
    """Return numbers of NumPy in MLX, as training has them."""
    changes = [{name: mx.array(array) for name, array in own.items()} for own in numbers]
    mx.eval(changes)
    return changes

"""Numbers, derivatives and records as the bytes of one message."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from edgellm.checkpoint.model_config import ModelConfig
from edgellm.errors import ConfigError, MachineError
from edgellm.training.low_rank import Change, LoraSettings, change_shapes
from edgellm.training.micro_batch import Ints, PreferencePair, TrainingSequence

ITEM = 4
"""Bytes of a number."""


class Layout:
    """The order of all numbers of an adapter in one buffer of float32.

    Args:
        config: of the model.
        lora: what is learned.
    """

    def __init__(self, config: ModelConfig, lora: LoraSettings) -> None:
        self._shapes = change_shapes(config, lora)

    @property
    def nbytes(self) -> int:
        """Bytes of all numbers."""
        return ITEM * sum(math.prod(shape) for own in self._shapes for shape in own.values())

    def parts(self, changes: Sequence[Change]) -> list[memoryview]:
        """Return views of all numbers, in their order. Raises ConfigError where some are others."""
        views = []
        for change, shapes in zip(changes, self._shapes, strict=True):
            if {name: tuple(array.shape) for name, array in change.items()} != shapes:
                raise ConfigError(
                    "the adapter has other numbers than its settings say",
                    hint="learn it on one machine: leave out --machines",
                )
            for name in shapes:
                numbers = np.array(change[name].astype(mx.float32), copy=False)
                views.append(memoryview(np.ascontiguousarray(numbers)).cast("B"))
        return views

    def changes(self, body: memoryview) -> list[Change]:
        """Return the numbers of a buffer, copied. Raises MachineError where these are not all."""
        if body.nbytes != self.nbytes:
            raise MachineError(
                f"{body.nbytes} bytes of numbers came, and the adapter has {self.nbytes}"
            )
        flat = np.frombuffer(body, np.float32)
        changes: list[Change] = []
        place = 0
        for shapes in self._shapes:
            own: Change = {}
            for name, shape in shapes.items():
                count = math.prod(shape)
                own[name] = mx.array(flat[place : place + count].reshape(shape))
                place += count
            changes.append(own)
        mx.eval(changes)
        return changes


def packed_items(items: Sequence[Any]) -> memoryview:
    """Return the records of a share as bytes: sequences, or pairs of them."""
    rows: list[Ints] = []
    for item in items:
        each = [item]
        if isinstance(item, PreferencePair):
            each = [item.chosen, item.rejected]
        for one in each:
            rows.append(np.array([one.length, one.number, *one.tokens, *one.targets], np.int64))
    return memoryview(np.concatenate(rows)).cast("B")


def unpacked_items(body: memoryview, *, pairs: bool) -> list[Any]:
    """Return the records that came as bytes. Raises MachineError where they are cut off."""
    flat = np.frombuffer(body, np.int64).tolist()
    found: list[TrainingSequence] = []
    place = 0
    while place < len(flat):
        length, number = flat[place : place + 2]
        begin, middle, end = place + 2, place + 2 + length, place + 2 + 2 * length
        if length < 1 or end > len(flat):
            raise MachineError("a record came that is cut off")
        found.append(TrainingSequence(tuple(flat[begin:middle]), tuple(flat[middle:end]), number))
        place = end
    if not pairs:
        return list(found)
    return [PreferencePair(*found[at : at + 2]) for at in range(0, len(found), 2)]

"""Numbers, derivatives and records as the bytes of one message."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from edgellm.errors import ConfigError, MachineError
from edgellm.training.low_rank import Change
from edgellm.training.micro_batch import Ints, PreferencePair, TrainingSequence, token_ids

ITEM = 4
"""Bytes of a number."""


class Layout:
    """The order of all numbers that are learned in one buffer of float32.

    Args:
        shapes: of each part's numbers, by name.
    """

    def __init__(self, shapes: Sequence[Mapping[str, tuple[int, ...]]]) -> None:
        self._shapes = shapes

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
                    "what is learned has other numbers than its settings say",
                    hint="learn it on one machine: leave out --machines",
                )
            for name in shapes:
                numbers = np.array(change[name].astype(mx.float32), copy=False)
                views.append(memoryview(np.ascontiguousarray(numbers)).cast("B"))
        return views

    def empty(self) -> list[Change]:
        """Return a change of each layer without numbers."""
        return [{} for _ in self._shapes]

    def changes(self, body: memoryview) -> list[Change]:
        """Return the numbers of a buffer, copied. Raises MachineError where these are not all."""
        changes = self.empty()
        for layer, name, array in self.arrays(body):
            changes[layer][name] = array
        return changes

    def arrays(self, body: memoryview) -> Iterator[tuple[int, str, mx.array]]:
        """Yield each array of a buffer, copied, with its layer and name. Raises MachineError."""
        if body.nbytes != self.nbytes:
            raise MachineError(
                f"{body.nbytes} bytes of numbers came, and {self.nbytes} are learned"
            )
        flat = np.frombuffer(body, np.float32)
        place = 0
        for layer, shapes in enumerate(self._shapes):
            for name, shape in shapes.items():
                count = math.prod(shape)
                array = mx.array(flat[place : place + count].reshape(shape))
                mx.eval(array)
                yield layer, name, array
                place += count


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
        length = flat[place]
        begin, middle, end = place + 2, place + 2 + length, place + 2 + 2 * length
        if length < 1 or end > len(flat):
            raise MachineError("a record came that is cut off")
        found.append(_sequence(flat[begin:middle], flat[middle:end], flat[place + 1]))
        place = end
    if not pairs:
        return list(found)
    if len(found) % 2:
        raise MachineError("an answer came without the other one of its pair")
    return [PreferencePair(*found[at : at + 2]) for at in range(0, len(found), 2)]


def _sequence(tokens: Iterable[int], targets: Iterable[int], number: int) -> TrainingSequence:
    try:
        return TrainingSequence(token_ids(tokens), token_ids(targets), number)
    except OverflowError as error:
        raise MachineError("a record came whose tokens are none") from error

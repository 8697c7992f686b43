"""The steps of a layer that go sequence by sequence: rotary positions, attention, merge."""

# L new tokens, H query heads, G key/value heads, D head size

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgellm.kernels.attention.scratch import (
    attention_scratch,
    tile_attention_rows,
    tile_attention_scratch,
)
from edgellm.kernels.codegen.abi import APART, ATTENTION, MERGE, ROPE, TILE_NUMBERS, slots
from edgellm.kernels.kernel_engine import KernelEngine, StepArray, step_array
from edgellm.kernels.layer import Branches, KVView, LayerShape, Splits

SEQUENCE_STEPS = 3
"""Steps of a layer that go sequence by sequence: rope, attention, merge."""

_ROPE_KEYS = 64
"""Keys to attend to that are as much work as a token's rotary positions."""

# Slots that change from token to token, in the order of the mappings in codegen/abi.py.
_LENGTHS = slots(ATTENTION, "length", "splits")
_SPLITS = slots(ATTENTION, "first_split", "max_exponent")
_ITEMS = slots(ATTENTION, "item_splits", "item_rows")

Sequences = Sequence[tuple[KVView, int]]
"""The sequences of a call in the order of their tokens: keys and values, and how many are new."""


@dataclass(frozen=True, slots=True)
class Partition:
    """How the sequences of a call attend.

    Attributes:
        splits: of each one's keys.
        partials: how many partial results of a head each has memory for.
        apart: whether each is done by one thread alone, side by side with the others.
    """

    splits: list[Splits]
    partials: list[int]
    apart: bool


def partition(engine: KernelEngine, sequences: Sequences, *, whole_keys: bool) -> Partition:
    """Return how sequences attend; ``whole_keys``: their keys are never split."""
    splits = [view.splits(tokens, whole=whole_keys) for view, tokens in sequences]
    partials = [
        own.partial_results(tokens) for own, (_, tokens) in zip(splits, sequences, strict=True)
    ]
    return Partition(splits, partials, _go_apart(engine, sequences))


def _go_apart(engine: KernelEngine, sequences: Sequences) -> bool:
    """Return whether each sequence is better done by one thread alone.

    The largest then takes no longer than all of them take by all threads.
    """
    if len(sequences) == 1 or any(view.copied for view, _ in sequences):
        return False
    work = [tokens * (_ROPE_KEYS + min(view.length, view.window)) for view, tokens in sequences]
    return engine.threads * max(work) <= sum(work)


class Rows(NamedTuple):
    """Some layers' steps that go sequence by sequence, the same of each.

    Attributes:
        steps: an array of steps, these among them.
        first: the number of a layer's first one; or of each of several layers.
    """

    steps: StepArray
    first: int | npt.NDArray[np.int64] = 0


def write_positions(
    engine: KernelEngine,
    shape: LayerShape,
    rows: Rows,
    sequences: Sequences,
    splits: Sequence[Splits],
) -> None:
    """Write what changes from token to token into the steps of each sequence."""
    steps = rows.steps
    rope = rows.first
    for (view, tokens), own in zip(sequences, splits, strict=True):
        attention, merge = rope + 1, rope + 2
        steps[rope, ROPE["position"]] = view.position
        steps[attention, _LENGTHS] = (view.length, view.window, own.count)
        max_exponent = max(own.min_exponent, view.max_exponent)
        steps[attention, _SPLITS] = (own.first, own.min_exponent, max_exponent)
        steps[attention, _ITEMS] = _item_sizes(engine, shape, tokens, own.count)
        steps[merge, MERGE["splits"]] = own.count
        rope = rope + SEQUENCE_STEPS


def write_paths(
    engine: KernelEngine,
    shape: LayerShape,
    steps: StepArray,
    view: KVView,
    branches: Branches,
) -> None:
    """Write the positions of a trie's branches into a layer's steps that go branch by branch.

    Args:
        engine: the kernels.
        shape: of the layer.
        steps: rope, attention and merge of each branch.
        view: keys and values, which are not split.
        branches: over them.
    """
    rope, attention, merge = (steps[number::SEQUENCE_STEPS] for number in range(SEQUENCE_STEPS))
    own = view.splits(1, whole=True)
    starts, lengths, windows = branches
    counts = np.full_like(lengths, own.count)
    rope[:, ROPE["position"]] = starts
    attention[:, _LENGTHS] = np.stack([starts + lengths, windows, counts], axis=1)
    max_exponent = max(own.min_exponent, view.max_exponent)
    attention[:, _SPLITS] = (own.first, own.min_exponent, max_exponent)
    for length in np.unique(lengths):
        sizes = _item_sizes(engine, shape, int(length), own.count)
        attention[lengths == length, _ITEMS] = sizes
    merge[:, MERGE["splits"]] = own.count


@dataclass(frozen=True, slots=True)
class CallSteps:
    """The steps of a call through a layer, and a view (3 * sequences, slots) of those to patch.

    Where sequences go apart, the view is memory of its own, which one step of the call points to.

    Attributes:
        steps: all of them.
        by_sequence: rope, attention and merge of each sequence.
        rope_at: the first step that goes sequence by sequence, or is for those that go apart.
        apart: whether they do.
    """

    steps: StepArray
    by_sequence: StepArray
    rope_at: int = 0
    apart: bool = False


class CallOfLayers:
    """The steps of a call through several layers, copied to be moved on token by token.

    Args:
        calls: of each layer, all for the same sequences.
        last: steps after the last layer.
    """

    def __init__(self, calls: Sequence[CallSteps], last: StepArray) -> None:
        self._steps = _joined([*(call.steps for call in calls), last])
        self._bounds = np.cumsum([0, *(len(call.steps) for call in calls)])
        self._bounds[-1] += len(last)
        # of layers whose sequences go apart: memory that a step of theirs points to
        apart = [number for number, call in enumerate(calls) if call.apart]
        self._apart_steps = _joined([calls[number].by_sequence for number in apart])
        self._apart_first: dict[int, int] = {}
        self._rope_at = [call.rope_at for call in calls]
        for place, number in enumerate(apart):
            first = place * len(calls[number].by_sequence)
            self._apart_first[number] = first
            step = self._bounds[number] + calls[number].rope_at
            self._steps[step, APART["steps"]] = self._apart_steps[first:].ctypes.data

    def steps(self, first: int, stop: int) -> StepArray:
        """Return the steps of the layers from one to before another, after the last all others."""
        return self._steps[self._bounds[first] : self._bounds[stop]]

    def rows(self, layers: Sequence[int]) -> Rows:
        """Return what goes sequence by sequence in layers that do so alike."""
        if layers[0] in self._apart_first:
            first = [self._apart_first[layer] for layer in layers]
            return Rows(self._apart_steps, np.array(first))
        first = [int(self._bounds[layer]) + self._rope_at[layer] for layer in layers]
        return Rows(self._steps, np.array(first))


def _joined(parts: Sequence[StepArray]) -> StepArray:
    """Return a copy of some steps, from a cache line on."""
    count = sum(map(len, parts))
    joined = step_array([[]] * count)
    if count:
        np.concatenate(parts, out=joined)
    return joined


# --- attention


def attention_kernels(engine: KernelEngine, kind: str, head_dim: int) -> tuple[int, int]:
    """Return the kernels for a kind of cache, for few tokens and for many."""
    few = many = engine.kernel("attention", kind, head_dim)
    if _in_tiles(engine, head_dim):
        many = engine.kernel("tile_attention", kind, head_dim)
    return few, many


def _item_sizes(
    engine: KernelEngine, shape: LayerShape, tokens: int, splits: int
) -> tuple[int, int]:
    """Return the splits, and of many tokens the queries, that a thread takes at once.

    A run of splits is one stretch of memory, but every thread gets eight runs.
    """
    rows = tokens * shape.heads // shape.kv_heads
    return (
        max(1, splits * shape.kv_heads // (8 * engine.threads)),
        tile_attention_rows(rows, shape.kv_heads, engine.threads, shape.head_dim),
    )


def reserve_attention_scratch(engine: KernelEngine, head_dim: int, *, tokens: int) -> None:
    """Give each thread the memory that it needs for up to this many tokens."""
    engine.reserve_scratch(attention_scratch(engine.isa.lanes, head_dim))
    if tokens > engine.max_exact_rows and _in_tiles(engine, head_dim):
        engine.reserve_scratch(tile_attention_scratch(head_dim))


def _in_tiles(engine: KernelEngine, head_dim: int) -> bool:
    """Return whether many queries are multiplied in tiles of bfloat16."""
    rounded = engine.activations == "int8"
    return rounded and engine.isa.tiles and head_dim % TILE_NUMBERS == 0

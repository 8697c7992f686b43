"""An aligned buffer that a layer's bytes are read into, and MLX arrays over its memory.

The arrays are made once for each layout of tensors in the buffer; when other bytes of the same
layout are read into it, they show those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import mlx.core as mx

from edgellm.checkpoint.safetensors_file import TensorInfo
from edgellm.checkpoint.tensor_order import ALIGNMENT, STACKS, stack_runs, tensor_order
from edgellm.device import machine as device
from edgellm.errors import UnsupportedModelError

PAGE = 16 * 1024
"""Bytes; a buffer begins at a multiple of it, as direct reads need (4 KiB on Linux, pages of 16 KiB
on Apple chips)."""

DTYPES: Mapping[str, mx.Dtype] = {
    "F16": mx.float16,
    "BF16": mx.bfloat16,
    "F32": mx.float32,
    "U32": mx.uint32,
    "U8": mx.uint8,
}
"""The stored types that arithmetic reads as they lie."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one tensor lies in a buffer.

    Attributes:
        name: the name of the tensor.
        dtype: the format's code (``BF16``).
        shape: the shape of the tensor.
        offset: the offset of its first byte in the buffer.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def end(self) -> int:
        """The offset after its last byte."""
        return self.offset + prod(self.shape) * DTYPES[self.dtype].size


@dataclass(frozen=True, slots=True)
class BufferLayout:
    """Where tensors lie in a buffer; the layers of a model share a few layouts."""

    placements: tuple[Placement, ...]
    nbytes: int


@dataclass(frozen=True, slots=True)
class Extent:
    """Adjacent bytes of a file, and where they go in a buffer."""

    file: Path
    offset: int
    nbytes: int
    buffer_offset: int


def place_tensors(tensors: Mapping[str, TensorInfo]) -> tuple[BufferLayout, tuple[Extent, ...]]:
    """Place tensors in a buffer, and return what is to be read from where.

    A layer of our own folders is one extent.

    Raises:
        UnsupportedModelError: a tensor has a type that no arithmetic reads.
    """
    order = tensor_order({name: tensor.nbytes for name, tensor in tensors.items()})
    # members of a stack after its first follow without a hole, so that they are one matrix
    followers = {name for run in stack_runs(tensors) for name in run[1:]}
    placements = []
    extents: list[Extent] = []
    end = 0
    for name in order:
        tensor = tensors[name]
        if tensor.dtype not in DTYPES:
            raise UnsupportedModelError(
                f"{tensor.file.name}: {name} is stored as {tensor.dtype}",
                hint="convert the model: edgellm convert SOURCE DEST",
            )
        offset = end
        if name not in followers:
            offset = -(-end // ALIGNMENT) * ALIGNMENT
        placements.append(Placement(name, tensor.dtype, tensor.shape, offset))
        end = offset + tensor.nbytes
        if tensor.nbytes:
            _add_extent(extents, Extent(tensor.file, tensor.offset, tensor.nbytes, offset))
    return BufferLayout(tuple(placements), end), tuple(extents)


def _add_extent(extents: list[Extent], extent: Extent) -> None:
    """Add an extent, to the last one where it goes on there, in the file and in the buffer."""
    if extents:
        last = extents[-1]
        file_distance = extent.offset - last.offset
        buffer_distance = extent.buffer_offset - last.buffer_offset
        if last.file == extent.file and file_distance == buffer_distance == last.nbytes:
            nbytes = last.nbytes + extent.nbytes
            extents[-1] = Extent(last.file, last.offset, nbytes, last.buffer_offset)
            return
    extents.append(extent)


class WeightBuffer:
    """Memory that weights are read into, allocated once and never moved.

    Args:
        nbytes: at least; rounded up to whole pages.

    Attributes:
        nbytes: bytes that it has.
        memory: the memory, to write to.
    """

    def __init__(self, nbytes: int) -> None:
        # NumPy takes longer to import than everything that only asks what a model is
        import numpy as np

        from edgellm.device.huge_pages import in_huge_pages

        self.nbytes: int = -(-nbytes // PAGE) * PAGE
        # one page more, so that there is a page's boundary to begin at
        self._array = mx.zeros((self.nbytes + PAGE,), dtype=mx.uint8)
        mx.eval(self._array)
        buffer: Any = self._array  # has the buffer protocol, which MLX's stubs do not say
        data = np.frombuffer(memoryview(buffer), dtype=np.uint8)
        if not device.has_gpu():
            in_huge_pages(data)
        self._start = -data.ctypes.data % PAGE
        self.memory: memoryview[int] = memoryview(data)[self._start : self._start + self.nbytes]
        self._views: dict[BufferLayout, Mapping[str, mx.array]] = {}

    def arrays(self, layout: BufferLayout) -> Mapping[str, mx.array]:
        """Return the tensors of a layout by name, and stacks that lie as one matrix by theirs.

        The buffer keeps them, so that no kernel ever takes their memory over.
        """
        if layout not in self._views:
            self._views[layout] = self._make_views(layout)
        return self._views[layout]

    def _make_views(self, layout: BufferLayout) -> Mapping[str, mx.array]:
        placements = {placement.name: placement for placement in layout.placements}
        stacks = {stack.name: stack for stack in _stacks(placements)}
        views = {name: self._view(placement) for name, placement in (placements | stacks).items()}
        mx.eval(*views.values())
        return views

    def _view(self, placement: Placement) -> mx.array:
        data = self._array[self._start + placement.offset : self._start + placement.end]
        return data.view(DTYPES[placement.dtype]).reshape(placement.shape)


def _stacks(placements: Mapping[str, Placement]) -> Iterator[Placement]:
    """Yield the stacks whose members lie as one matrix, each part as a tensor of its own."""
    for run in stack_runs(placements):
        member, _, part = run[0].rpartition(".")
        name, members = next(stack for stack in STACKS.items() if member in stack[1])
        run_placements = [placements[tensor] for tensor in run]
        if 1 < len(members) == len(run) and _is_one_matrix(run_placements):
            first = run_placements[0]
            rows = sum(placement.shape[0] for placement in run_placements)
            yield Placement(f"{name}.{part}", first.dtype, (rows, *first.shape[1:]), first.offset)


def _is_one_matrix(run: Sequence[Placement]) -> bool:
    first = run[0]
    end = first.offset
    for placement in run:
        if (placement.dtype, placement.shape[1:]) != (first.dtype, first.shape[1:]):
            return False
        if placement.offset != end:
            return False
        end = placement.end
    return True

"""A slot: one aligned buffer that a layer's bytes are read into, and MLX arrays that share its memory.

The arrays are made once for each inner layout; when other bytes of the same layout are read into
the slot, they show those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from edgellm.checkpoint.folder import TensorInfo
from edgellm.checkpoint.tensor_order import ALIGNMENT, STACKS, stack_runs, tensor_order
from edgellm.device import machine as device
from edgellm.device.huge_pages import in_huge_pages
from edgellm.errors import UnsupportedModelError

PAGE = 16 * 1024
"""Bytes; a slot begins at a multiple of it, as direct reads need (4 KiB on Linux, 16 KiB pages on Apple chips)."""

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
    """Where one tensor lies in a slot; ``dtype`` is the format's code."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class BufferLayout:
    """The inner layout of a slot. Layers of one model share a few of them."""

    placements: tuple[Placement, ...]
    nbytes: int


@dataclass(frozen=True, slots=True)
class Extent:
    """Adjacent bytes of a file, and their place in a slot."""

    file: Path
    offset: int
    nbytes: int
    place: int


def place_tensors(tensors: Mapping[str, TensorInfo]) -> tuple[BufferLayout, tuple[Extent, ...]]:
    """Place tensors in a slot, and say what is to be read from where: one extent for a layer of our own folders.

    Raises:
        UnsupportedModelError: a tensor has a type that no kernel reads.
    """
    order = tensor_order({name: tensor.nbytes for name, tensor in tensors.items()})
    followers = {name for run in stack_runs(tensors) for name in run[1:]}
    placements, extents, end = [], list[Extent](), 0
    for name in order:
        tensor = tensors[name]
        if tensor.dtype not in DTYPES:
            raise UnsupportedModelError(
                f"{tensor.file.name}: {name} is stored as {tensor.dtype}",
                hint="convert the model: edgellm convert SOURCE DEST",
            )
        place = end if name in followers else -(-end // ALIGNMENT) * ALIGNMENT
        placements.append(Placement(name, tensor.dtype, tensor.shape, place))
        end = place + tensor.nbytes
        last = extents[-1] if extents else None
        if (
            last
            and last.file == tensor.file
            and tensor.offset - last.offset == place - last.place == last.nbytes
        ):
            extents[-1] = Extent(last.file, last.offset, last.nbytes + tensor.nbytes, last.place)
        elif tensor.nbytes:
            extents.append(Extent(tensor.file, tensor.offset, tensor.nbytes, place))
    return BufferLayout(tuple(placements), end), tuple(extents)


class WeightBuffer:
    """An MLX array of ``nbytes`` bytes, allocated once and never moved; its memory is written through ``memory``."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = -(-nbytes // PAGE) * PAGE
        self._array = mx.zeros((self.nbytes + PAGE,), dtype=mx.uint8)
        mx.eval(self._array)
        buffer: Any = self._array  # has the buffer protocol, which MLX's stubs do not say
        whole = np.frombuffer(memoryview(buffer), dtype=np.uint8)
        if not device.has_gpu():
            in_huge_pages(whole)
        self._start = -whole.ctypes.data % PAGE
        self.memory = memoryview(whole)[self._start : self._start + self.nbytes]
        self._views: dict[BufferLayout, Mapping[str, mx.array]] = {}

    def arrays(self, layout: BufferLayout) -> Mapping[str, mx.array]:
        """The tensors of a layout by name, and each stack that can be one matrix by the stack's name.

        The slot keeps them, so that no kernel ever takes their memory over.
        """
        found = self._views.get(layout)
        if found is None:
            found = self._views[layout] = self._make(layout)
        return found

    def _make(self, layout: BufferLayout) -> Mapping[str, mx.array]:
        placed = {placement.name: placement for placement in layout.placements}
        for stack, part, run in _stacks(placed):
            if _is_one_matrix(run):
                rows = sum(member.shape[0] for member in run)
                first = run[0]
                placed[f"{stack}.{part}"] = Placement(
                    "", first.dtype, (rows, *first.shape[1:]), first.offset
                )
        views = {name: self._view(placement) for name, placement in placed.items()}
        mx.eval(*views.values())
        return views

    def _view(self, placement: Placement) -> mx.array:
        dtype = DTYPES[placement.dtype]
        begin = self._start + placement.offset
        return (
            self._array[begin : begin + prod(placement.shape) * dtype.size]
            .view(dtype)
            .reshape(placement.shape)
        )


def _stacks(placed: Mapping[str, Placement]) -> list[tuple[str, str, list[Placement]]]:
    """Stack name, part, and the placements of its members."""
    found = []
    for run in stack_runs(placed):
        member, _, part = run[0].rpartition(".")
        stack = next(name for name, members in STACKS.items() if member in members)
        if len(run) == len(STACKS[stack]) > 1:
            found.append((stack, part, [placed[name] for name in run]))
    return found


def _is_one_matrix(run: Sequence[Placement]) -> bool:
    first, end = run[0], run[0].offset
    for member in run:
        if (member.dtype, member.shape[1:], member.offset) != (first.dtype, first.shape[1:], end):
            return False
        end = member.offset + prod(member.shape) * DTYPES[member.dtype].size
    return True

"""Kernels for this processor, the threads that run them, and the memory they work in."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgellm.kernels.code_cache import Objects
from edgellm.kernels.codegen.abi import CALL, CALL_SLOTS, FEW, MANY, SOME, STEP_SLOTS
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.thread_pool import Pool, aligned

Activations = Literal["int8", "float"]
Step = Sequence[int]
"""A kernel's address and its arguments."""


class Engine:
    """One instruction set, one pool of threads and one working memory, shared by all models of a process.

    Args:
        objects: compiled code for the instruction set.
        threads: how many work on a call.
        activations: whether products round activations to int8 (or tiles of bfloat16), or stay in
            float32.
    """

    def __init__(self, objects: Objects, *, threads: int, activations: Activations) -> None:
        self.objects, self.threads = objects, threads
        self.activations: Activations = activations if objects.isa.dot else "float"
        self.pool = Pool(objects, threads=threads)
        self.memory = Memory()
        self._call = aligned(8 * CALL_SLOTS, np.int64)
        self._scratch = self.memory.buffer("scratch")
        self._scratch_bytes = 0

    @property
    def isa(self) -> Isa:
        """The instruction set."""
        return self.objects.isa

    def kernel(self, kernel: str, *arguments: object) -> int:
        """The address of a kernel of the catalog, compiled at its first use."""
        return self.objects.kernel(kernel, *arguments)

    def reserve_scratch(self, nbytes: int) -> None:
        """Give each thread at least so much memory of its own. The caller holds the lock."""
        if nbytes > self._scratch_bytes:
            self._scratch_bytes = -(-nbytes // 4096) * 4096
            self._scratch.reserve(self._scratch_bytes * self.threads)

    def run(self, steps: npt.NDArray[np.int64], tokens: int) -> None:
        """Do the steps for so many tokens. The caller holds the lock."""
        self._call[CALL["tokens"]] = tokens
        self._call[CALL["scratch"]] = self._scratch.address
        self._call[CALL["scratch_bytes"]] = self._scratch_bytes
        self.pool.run(steps, self._call)

    @property
    def max_exact_rows(self) -> int:
        """Up to so many tokens each gets what it would get alone, and a pass costs little more than for one."""
        return FEW

    def room(self, tokens: int) -> int:
        """The tokens that steps for so many should be made for: every size has kernels of its own."""
        return next(size for size in (1, SOME, FEW, max(tokens, MANY)) if tokens <= size)

    @property
    def lock(self) -> threading.Lock:
        """Held while working memory is in use."""
        return self.pool.lock


class Buffer:
    """Memory that grows and then moves."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.array: npt.NDArray[np.float32] = aligned(64, np.float32)

    def reserve(self, nbytes: int) -> None:
        """Make it at least so large; what it held is lost if it was smaller."""
        if nbytes > self.array.nbytes:
            self.array = aligned(-(-nbytes // 64) * 64, np.float32)
            self._memory.version += 1

    @property
    def address(self) -> int:
        """Where it begins."""
        return int(self.array.ctypes.data)


class Memory:
    """Working memory by name; steps hold addresses in it, and are made anew when ``version`` changed."""

    def __init__(self) -> None:
        self.version = 0
        self._buffers: dict[str, Buffer] = {}

    def buffer(self, name: str) -> Buffer:
        """The buffer of this name."""
        found = self._buffers.get(name)
        if found is None:
            found = self._buffers[name] = Buffer(self)
        return found

    def reserved(self, name: str, nbytes: int) -> int:
        """The address of a buffer that is at least so large."""
        found = self.buffer(name)
        found.reserve(nbytes)
        return found.address

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(buffer.array.nbytes for buffer in self._buffers.values())


def table(steps: Sequence[Step]) -> npt.NDArray[np.int64]:
    """Steps as the pool reads them, (count, slots)."""
    rows = aligned(8 * STEP_SLOTS * max(1, len(steps)), np.int64).reshape(-1, STEP_SLOTS)[
        : len(steps)
    ]
    for row, step in zip(rows, steps, strict=True):
        row[: len(step)] = step
    return rows


def float_bits(value: float) -> int:
    """A float32 in the low half of a slot."""
    return int(np.float32(value).view(np.uint32))
